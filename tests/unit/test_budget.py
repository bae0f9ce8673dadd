"""Budgets as values: windows on the UTC calendar, limits, worst cases, thresholds, and what follows exhaustion."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service import budget, pricing
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.pricing import Price, Usage, UsageSource

PRICE = Price(
    input=2_500_000_000, cached_input=1_250_000_000, cache_write=0, output=10_000_000_000, reasoning=10_000_000_000
)


def _at(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]


def test_windows_begin_on_the_utc_hour_day_and_month() -> None:
    hour, day, month = budget.windows_at(_at(2026, 2, 28, 23, 59, 59))
    assert (hour.start, hour.end) == (_at(2026, 2, 28, 23), _at(2026, 3, 1))
    assert (day.start, day.end) == (_at(2026, 2, 28), _at(2026, 3, 1))
    assert (month.start, month.end) == (_at(2026, 2, 1), _at(2026, 3, 1))


def test_a_leap_february_and_a_december_end_where_the_calendar_says() -> None:
    assert budget.window_at(Period.MONTH, _at(2028, 2, 10)).end == _at(2028, 3, 1)
    assert budget.window_at(Period.MONTH, _at(2026, 12, 31, 23)).end == _at(2027, 1, 1)


@given(st.floats(0, 4e9))
def test_every_moment_lies_in_its_windows_and_the_next_window_begins_where_one_ends(at: float) -> None:
    for window in budget.windows_at(at):
        assert window.holds(at)
        assert budget.window_at(window.period, window.end).start == window.end


def test_the_worst_case_is_never_below_any_real_cost_within_its_bounds() -> None:
    worst = budget.worst_case(PRICE, prompt_tokens=1_000, output_tokens=500, answers=2)
    assert worst == (1_000 * 2_500_000_000 + 1_000 * 10_000_000_000) // 1_000_000
    usage = Usage(input_tokens=400, cached_input_tokens=600, output_tokens=700, reasoning_tokens=300,
                  source=UsageSource.REPORTED)  # fmt: skip
    assert pricing.cost(PRICE, usage) <= worst


def test_a_cache_that_is_dearer_than_plain_input_counts_in_the_worst_case() -> None:
    dear = Price(input=1_000_000, cached_input=2_000_000, cache_write=0, output=1_000_000, reasoning=5_000_000)
    assert budget.worst_case(dear, prompt_tokens=10, output_tokens=10) == 20 + 50


def test_a_prompt_bound_counts_bytes_overhead_and_parts() -> None:
    assert budget.prompt_bound(text_bytes=len("żółw".encode()), overhead_tokens=32, part_tokens=1_000) == 7 + 1_032


@pytest.mark.parametrize("amount", [-1, 2**53])
def test_a_limit_outside_of_what_scripts_hold_exactly_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match=r"about \$9\.0M"):
        Limit(Period.DAY, amount)


def test_degrade_falls_to_the_cheapest_once_and_never_in_a_tool_loop() -> None:
    assert budget.degrades(OnExhausted.DEGRADE, cheapest=False, in_tool_loop=False)
    assert not budget.degrades(OnExhausted.DEGRADE, cheapest=True, in_tool_loop=False)
    assert not budget.degrades(OnExhausted.DEGRADE, cheapest=False, in_tool_loop=True)
    assert not budget.degrades(OnExhausted.REJECT, cheapest=False, in_tool_loop=False)
    assert not budget.degrades(OnExhausted.BORROW, cheapest=False, in_tool_loop=False)


def test_only_borrow_raises_the_limits() -> None:
    limits = (Limit(Period.DAY, 100), Limit(Period.MONTH, budget.MAX_LIMIT))
    assert budget.with_overdraft(limits, OnExhausted.DEGRADE, 50) == limits
    borrowed = budget.with_overdraft(limits, OnExhausted.BORROW, 50)
    assert [limit.amount for limit in borrowed] == [150, budget.MAX_LIMIT]


def test_thresholds_are_crossed_once_and_together_when_one_call_passes_several() -> None:
    assert budget.thresholds_crossed(before=499, after=500, limit=1_000) == (50,)
    assert budget.thresholds_crossed(before=500, after=799, limit=1_000) == ()
    assert budget.thresholds_crossed(before=0, after=1_000, limit=1_000) == (50, 80, 100)


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(1, 1_000))
def test_however_spending_grows_each_threshold_is_crossed_at_most_once(steps: list[int], limit: int) -> None:
    seen: list[int] = []
    spent = 0
    for step in steps:
        seen += budget.thresholds_crossed(before=spent, after=spent + step, limit=limit)
        spent += step
    assert seen == [percent for percent in budget.SOFT_THRESHOLDS if spent * 100 >= limit * percent]


def test_amounts_are_shown_exactly() -> None:
    assert budget.format_usd(150_000_000_000_124) == "150000.000000124"
    assert budget.format_usd(1_500_000_000) == "1.50"
    assert budget.format_usd(-20_000_000) == "-0.02"
