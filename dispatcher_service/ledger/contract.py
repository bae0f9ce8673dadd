"""What a ledger is: the money book that cannot be overspent. Values, and the port that three backends implement.

*The invariant*: no reservation is granted that would take `committed = spent + reserved` above a limit. Committed can
pass a limit only by the causes of `OverrunCause`, and each time it does that is counted.

*Life of a reservation*: `reserve` → (`mark_started`) → `settle`, or `release` where certainly nothing was called. One
that outlives its lifetime expires: not started, it is released; started, its estimate is settled as `EXPIRED`, and a
true settle that comes later corrects that. `settle` and `release` are idempotent; `reserve` is, by the attempt's id.

*Windows*: every attempt counts in its hour, day and month, limited or not, so that a limit set at noon knows the
morning. A charge belongs to the windows in which it was reserved, whenever it is settled.

*Clock*: a backend has one for windows and expiry. SQLite: the host's; Redis: the server's own TIME.

*Failure*: a backend that cannot be reached or trusted raises `LedgerUnavailable`; it never grants on a guess.

*Immediate*: a backend that does its steps within the process. What it has done is known as soon as it is done: no
answer can be late or lost. A step of its that is cancelled while it waits for its turn has done nothing.
"""

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from dispatcher_service.budget import BudgetWindow, Limit, Period, Windows
from dispatcher_service.pricing import NanoUsd

RETENTION = 24 * 3600.0
"""Seconds that an expired or released reservation is remembered, so that a late settle can correct it."""

SETTLED_RETENTION = 3600.0
"""Seconds that a settled reservation is remembered, so that settling again changes nothing."""

MAX_LIFETIME = 12 * 3600.0
"""The longest lifetime of a reservation, in seconds: well below what windows and reservations are kept for."""

WINDOWS_KEPT: Mapping[Period, float] = {
    Period.HOUR: 3 * 86_400.0,
    Period.DAY: 70 * 86_400.0,
    Period.MONTH: 800 * 86_400.0,
}
"""Seconds after its start that a window's balance is kept. The usage rows of the report are kept for good."""

TOKEN_CLASSES = ("input", "cached_input", "cache_write", "output", "reasoning")
_TOKEN_CLASSES = frozenset(TOKEN_CLASSES)


class ChargeSource(enum.Enum):
    """How far to trust a charge. Closed: a metric label and a column of the report."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    EXPIRED = "expired"


class OverrunCause(enum.Enum):
    """How committed came to pass a limit. Closed: a metric label."""

    ABOVE_RESERVATION = "above_reservation"
    LOWERED_LIMIT = "lowered_limit"
    LATE_SETTLE = "late_settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of one upstream that is about to be made.

    Attributes:
        id: unique per attempt: reserving it again returns the same reservation.
        worst_case: the most that it can cost (`budget.worst_case`).
        estimate: what it is expected to cost, at most the worst case; charged if it expires after it was started.
        limits: the tenant's, at most one per period.
        lifetime: seconds after which the reservation expires.
        started: true to have it marked as started at once, where nothing is awaited between reserve and call and the
            backend is immediate: else an answer that is lost leaves a charge for a call that was never made.
    """

    id: str
    tenant_id: str
    model: str
    worst_case: NanoUsd
    estimate: NanoUsd
    limits: tuple[Limit, ...]
    lifetime: float
    started: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.estimate <= self.worst_case < 2**53:
            raise ValueError(f"needs 0 <= estimate <= worst case < 2**53, not {self.estimate} and {self.worst_case}")
        if not 0 < self.lifetime <= MAX_LIFETIME:
            raise ValueError(f"a lifetime lies in (0, {MAX_LIFETIME}] seconds, not at {self.lifetime}")
        if len(self.limits) > 1 and len({limit.period for limit in self.limits}) != len(self.limits):
            raise ValueError("a tenant has at most one limit per period")


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's account of one window."""

    window: BudgetWindow
    spent: NanoUsd
    reserved: NanoUsd

    @property
    def committed(self) -> NanoUsd:
        """What is spent and what may yet be."""
        return self.spent + self.reserved


Balances = tuple[Balance, Balance, Balance]
"""In the order of `Period`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Money put aside for an attempt. `balances` include it; times are in seconds since the epoch."""

    id: str
    tenant_id: str
    model: str
    worst_case: NanoUsd
    estimate: NanoUsd
    expires_at: float
    balances: Balances

    @property
    def windows(self) -> Windows:
        """The windows that the attempt counts in."""
        hour, day, month = self.balances
        return hour.window, day.window, month.window


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A reservation that did not fit. `limit` is the one with the least left, `balance` its window's."""

    limit: Limit
    balance: Balance
    needed: NanoUsd
    now: float
    """The ledger's clock, in seconds since the epoch."""

    @property
    def left(self) -> NanoUsd:
        """What could still be reserved; 0 where the limit is passed."""
        return max(self.limit.amount - self.balance.committed, 0)

    @property
    def retry_after(self) -> float:
        """Seconds until the window ends."""
        return max(self.balance.window.end - self.now, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a call really cost. `tokens` are counts by the classes of `TOKEN_CLASSES`; others are refused."""

    cost: NanoUsd
    source: ChargeSource
    tokens: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.cost < 2**53:
            raise ValueError(f"a charge lies in [0, 2**53) nano-USD, not at {self.cost}")
        if not self.tokens.keys() <= _TOKEN_CLASSES:
            unknown = self.tokens.keys() - _TOKEN_CLASSES
            raise ValueError(f"unknown token classes: {', '.join(sorted(unknown))}")

    def counts(self) -> tuple[int, ...]:
        """Tokens in the order of `TOKEN_CLASSES`."""
        return tuple([self.tokens.get(name, 0) for name in TOKEN_CLASSES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What settling did.

    Attributes:
        charged: what the attempt is charged now. For a second settle that is what the first one charged.
        change: by how much that moved what was spent; 0 for a second settle.
        repeated: it had been settled before.
        late: it had expired or been released before, or is not known any more.
        overrun: the cause by which a limit was passed, and by how much at most; `None` if none was.
        balances: of the windows it was reserved in.
    """

    charged: NanoUsd
    change: NanoUsd
    repeated: bool
    late: bool
    overrun: tuple[OverrunCause, NanoUsd] | None
    balances: Balances


@dataclass(frozen=True, slots=True)
class Overrun:
    """How often limits were passed by one cause, and by how much in all."""

    count: int
    amount: NanoUsd


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """A line of the cost report: what a tenant's calls of a model came to on a day (UTC, the day of reservation)."""

    tenant_id: str
    day: date
    model: str
    source: ChargeSource
    calls: int
    cost: NanoUsd
    tokens: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """One of several documents that are written together. See `Ledger.put_document`."""

    tenant_id: str
    name: str
    body: bytes
    expected: int
    lifetime: float | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A small value kept beside the money, such as a tenant's pace or policy overlay. `version` counts from 1."""

    version: int
    body: bytes


class Ledger(Protocol):
    """The money book. Every method may raise `LedgerUnavailable`."""

    @property
    def immediate(self) -> bool:
        """See the top of the file. Such a backend awaits nothing but `asyncio.sleep`."""

    async def reserve(self, attempt: Attempt) -> Reservation | Refusal:
        """Put the worst case aside, in all windows in one atomic step, or say which limit has no room for it."""

    async def mark_started(self, reservation: Reservation) -> bool:
        """The upstream is about to be called. False if the reservation is not open any more: do not call."""

    async def settle(self, reservation: Reservation, charge: Charge) -> Settled:
        """Replace the reservation by what the call cost. Never refused: the money is gone."""

    async def release(self, reservation: Reservation) -> bool:
        """Certainly nothing was called: give the money back. False if the reservation was not open any more."""

    async def expire(self) -> int:
        """Expire what is due, of all tenants; returns how many.

        `balances` does so for its tenant, and so does `reserve`: before it refuses, and else within a moment.
        """

    async def balances(self, tenant_id: str) -> Balances:
        """The tenant's account of the windows of this moment."""

    async def overruns(self, tenant_id: str) -> Mapping[OverrunCause, Overrun]:
        """Counters since the ledger began; every cause is there."""

    async def usage(self, first: date, last: date) -> list[UsageRow]:
        """The report's rows of the days `first` to `last`, both included, ordered by tenant, day, model, source."""

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        """A document, `None` if there is none or its time is over."""

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        """Write a document if its version is still `expected`, 0 for "none yet". False if another was quicker.

        `lifetime` is in seconds; `None` keeps it for good.
        """

    async def put_documents(self, writes: Sequence[DocumentWrite]) -> list[bool]:
        """As `put_document` for each of them, in this order, at the cost of little more than one."""

    def documents(self, tenant_id: str, prefix: str) -> AsyncIterator[tuple[str, Document]]:
        """The tenant's documents whose names begin with `prefix`, each with its name, in no order."""

    async def delete_document(self, tenant_id: str, name: str) -> bool:
        """Forget one document at once. False if there was none."""

    async def delete_documents(self, tenant_id: str, prefix: str) -> int:
        """Forget every document of the tenant whose name begins with `prefix`, which is not empty; returns how many."""

    async def scrub(self) -> None:
        """Leave nothing of what was forgotten in files of the backend's own. Not for requests: it may take a second.

        A server's append-only file is the server's: it forgets when it is rewritten.
        """

    async def close(self) -> None:
        """Let go of files and connections."""
