"""Budgets as values: windows, limits, the worst case of an attempt, and what follows when money runs out.

Windows are fixed, in UTC and epoch-aligned: an hour begins at a multiple of 3,600 seconds since the epoch, a day at a
multiple of 86,400. A month is the calendar month in UTC, because that is what invoices use; it begins at 00:00 UTC on
its first day. There is no rolling window: two calls 61 seconds apart may fall into different hours, and a tenant that
spends at the end of one window and at the start of the next spends at most two limits in a short time.
"""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from dispatcher_service.closed_set import ClosedSet
from dispatcher_service.pricing import NANO_USD_PER_USD, NanoUsd, Price

MAX_LIMIT: NanoUsd = 2**53 - 1
"""The largest limit, about $9.0M: beyond it server-side scripts, which compute in doubles, are not exact."""

SOFT_THRESHOLDS = (50, 80, 100)
"""Percent of a limit at which a warning is due."""

_TOKENS_PER_PRICE = 1_000_000


class Period(ClosedSet):
    """How long a budget window is."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


PERIODS = tuple(Period)
"""In the order of windows and balances."""


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """A fixed interval [start, end), in whole seconds since the epoch."""

    period: Period
    start: int
    end: int

    def holds(self, at: float) -> bool:
        """Whether a time, in seconds since the epoch, lies in it."""
        return self.start <= at < self.end


Windows = tuple[BudgetWindow, BudgetWindow, BudgetWindow]
"""The windows of one moment, in the order of `Period`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` in every window of this period."""

    period: Period
    amount: NanoUsd

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= MAX_LIMIT:
            raise ValueError(f"a limit lies between 0 and {MAX_LIMIT} nano-USD (about $9.0M), not at {self.amount}")


class OnExhausted(enum.Enum):
    """What a tenant wants when a reservation does not fit its limits."""

    DEGRADE = "degrade"
    """The weak model, as long as that fits; then refuse."""
    REJECT = "reject"
    """Refuse at once."""
    BORROW = "borrow"
    """Go over the limit up to a stated overdraft; then refuse."""


@lru_cache(maxsize=16)
def _windows_of_hour(hour: int) -> Windows:
    start = hour * 3600
    date = datetime.fromtimestamp(start, tz=UTC)
    month = date.replace(day=1, hour=0)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    day = start - start % 86_400
    return (
        BudgetWindow(Period.HOUR, start, start + 3600),
        BudgetWindow(Period.DAY, day, day + 86_400),
        BudgetWindow(Period.MONTH, int(month.timestamp()), int(following.timestamp())),
    )


def windows_at(at: float) -> Windows:
    """The windows that hold a time, given in seconds since the epoch."""
    return _windows_of_hour(int(at // 3600))


def window_at(period: Period, at: float) -> BudgetWindow:
    """The window of one period that holds a time, given in seconds since the epoch."""
    return windows_at(at)[PERIODS.index(period)]


def prompt_bound(*, text_bytes: int, overhead_tokens: int, part_tokens: int = 0) -> int:
    """The most tokens a prompt can have.

    Args:
        text_bytes: UTF-8 bytes of messages, tools and schema: no byte-level tokenizer makes more tokens than bytes.
        overhead_tokens: what the upstream's template may add, as configured for the model.
        part_tokens: the configured bounds of parts that are not text, summed; a part without one is to be refused.
    """
    return text_bytes + overhead_tokens + part_tokens


def worst_case(price: Price, *, prompt_tokens: int, output_tokens: int, answers: int = 1) -> NanoUsd:
    """The most that one attempt can cost, rounded up.

    Args:
        price: of the model that is tried.
        prompt_tokens: a bound, such as `prompt_bound` gives.
        output_tokens: the most tokens of one answer, reasoning included.
        answers: how many answers are asked for (`n`).
    """
    most = prompt_tokens * max(price.input, price.cached_input, price.cache_write)
    most += answers * output_tokens * max(price.output, price.reasoning)
    return -(-most // _TOKENS_PER_PRICE)


def with_overdraft(limits: tuple[Limit, ...], policy: OnExhausted, overdraft: NanoUsd) -> tuple[Limit, ...]:
    """The limits that the ledger holds the tenant to: higher by the overdraft where the policy is to borrow."""
    if policy is not OnExhausted.BORROW:
        return limits
    return tuple(Limit(limit.period, min(limit.amount + overdraft, MAX_LIMIT)) for limit in limits)


def degrades(policy: OnExhausted, *, cheapest: bool, in_tool_loop: bool) -> bool:
    """Whether the cheapest model is to be tried after a reservation was refused; if not, the request is.

    Args:
        policy: the tenant's.
        cheapest: whether the cheapest model is what was refused.
        in_tool_loop: then the model never changes, whatever the policy says.
    """
    return policy is OnExhausted.DEGRADE and not cheapest and not in_tool_loop


def thresholds_crossed(*, before: NanoUsd, after: NanoUsd, limit: NanoUsd) -> tuple[int, ...]:
    """The soft thresholds, in percent of the limit, that spending passed on its way from `before` to `after`."""
    if after * 100 < limit * SOFT_THRESHOLDS[0]:
        return ()
    return tuple(percent for percent in SOFT_THRESHOLDS if before * 100 < limit * percent <= after * 100)


def format_usd(amount: NanoUsd) -> str:
    """An exact amount for people, in US dollars: at least two decimals, no trailing zeros beyond them."""
    sign = "-" if amount < 0 else ""
    whole, fraction = divmod(abs(amount), NANO_USD_PER_USD)
    decimals = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"
