"""Money: integers, rounded once, up."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.pricing import Price, Usage, UsageSource, cost, estimate_usage

# $2.50, $1.25, $3, $10 and $12 per million tokens.
PRICE = Price(
    input=2_500_000_000,
    cached_input=1_250_000_000,
    cache_write=3_000_000_000,
    output=10_000_000_000,
    reasoning=12_000_000_000,
)


def usage(**tokens: Any) -> Usage:
    return Usage(**tokens, source=UsageSource.REPORTED)


def test_every_token_class_has_its_own_price() -> None:
    # By hand: 100 · 2,500 + 40 · 1,250 + 2 · 3,000 + 10 · 10,000 + 5 · 12,000 nano-USD.
    tokens = usage(input_tokens=100, cached_input_tokens=40, cache_write_tokens=2, output_tokens=10, reasoning_tokens=5)
    assert cost(PRICE, tokens) == 250_000 + 50_000 + 6_000 + 100_000 + 60_000


def test_a_fraction_of_a_nano_dollar_rounds_up_once_per_call() -> None:
    third = Price(input=333_333, cached_input=0, cache_write=0, output=333_333, reasoning=0)
    assert cost(third, usage(input_tokens=1)) == 1
    # 2 · 333,333 / 10⁶ = 0.67: one rounding gives 1, a rounding per class would give 2.
    assert cost(third, usage(input_tokens=1, output_tokens=1)) == 1


def test_nothing_used_costs_nothing() -> None:
    assert cost(PRICE, usage()) == 0


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_cost_is_exact_at_any_size(input_tokens: int, output_tokens: int) -> None:
    tokens = usage(input_tokens=input_tokens, output_tokens=output_tokens)
    assert cost(PRICE, tokens) == input_tokens * 2_500 + output_tokens * 10_000


def test_an_estimate_counts_one_token_per_four_bytes_rounded_up_and_says_so() -> None:
    estimate = estimate_usage(prompt_bytes=9, answer_bytes=4)
    assert (estimate.input_tokens, estimate.output_tokens) == (3, 1)
    assert estimate.source is UsageSource.ESTIMATED


def test_token_classes_sum_to_what_was_processed() -> None:
    tokens = usage(input_tokens=1, cached_input_tokens=2, cache_write_tokens=16, output_tokens=4, reasoning_tokens=8)
    assert sum(tokens.by_class().values()) == 31
