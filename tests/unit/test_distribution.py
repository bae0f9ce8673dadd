"""The decayed histogram: what F and its inverse promise to the decision rule."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.distribution import BINS, Distribution

PROBABILITIES = st.floats(0.0, 1.0)
QUANTILES = st.lists(PROBABILITIES, min_size=2, max_size=40).map(sorted)


@given(QUANTILES, st.floats(0.0, 1.0, exclude_min=True))
def test_the_quantile_is_the_smallest_score_with_at_least_that_much_mass(quantiles: list[float], level: float) -> None:
    distribution = Distribution.seeded(quantiles, weight=10.0)
    found = distribution.quantile(level)
    assert distribution.cumulative(found) == pytest.approx(level, abs=1e-9)
    smaller = found - 1e-6
    assert smaller < 0 or distribution.cumulative(smaller) < level + 1e-12


@given(QUANTILES)
def test_cumulative_never_falls_and_runs_from_0_to_1(quantiles: list[float]) -> None:
    distribution = Distribution.seeded(quantiles, weight=1.0)
    values = [distribution.cumulative(index / 1000) for index in range(1001)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(1.0, abs=1e-12)


@given(QUANTILES)
def test_no_level_up_to_1_asks_for_more_than_the_highest_score(quantiles: list[float]) -> None:
    distribution = Distribution.seeded(quantiles, weight=1.0)
    highest_bin_ends = (min(int(quantiles[-1] * BINS), BINS - 1) + 1) / BINS
    assert distribution.quantile(1.0) <= highest_bin_ends


def test_a_level_of_0_or_less_asks_for_nothing() -> None:
    distribution = Distribution.seeded((0.4, 0.6), weight=1.0)
    assert distribution.quantile(0.0) == 0.0
    assert distribution.quantile(-0.1) == 0.0


def test_a_seed_has_the_quantiles_it_was_made_from() -> None:
    quantiles = [0.5 + 0.1 * (step / 200) ** 2 for step in range(201)]
    distribution = Distribution.seeded(quantiles, weight=1000.0)
    for step in range(0, 201, 20):
        assert distribution.quantile(step / 200) == pytest.approx(quantiles[step] if step else 0.0, abs=1 / BINS)


@given(st.lists(PROBABILITIES, min_size=1, max_size=30), st.lists(PROBABILITIES, min_size=1, max_size=30))
def test_histograms_of_two_replicas_add_up_to_the_histogram_of_all_calls(one: list[float], other: list[float]) -> None:
    empty = Distribution.seeded((0.0, 1.0), weight=1e-9)
    forever = 1e12
    together = empty.observed([*one, *other], memory=forever)
    merged = empty.observed(one, memory=forever).merged(empty.observed(other, memory=forever))
    assert merged.weights == pytest.approx(together.weights, abs=1e-6)


def test_the_weight_tends_to_the_memory() -> None:
    distribution = Distribution.seeded((0.0, 1.0), weight=1.0)
    for _ in range(200):
        distribution = distribution.observed([0.5] * 10, memory=100.0)
    # Calls of one batch do not fade each other: the limit is a little above the memory.
    assert math.fsum(distribution.weights) == pytest.approx(100.0, rel=0.06)


def test_a_new_version_keeps_each_percentile_of_a_tenant_that_is_harder_than_the_reference() -> None:
    old_reference = [0.5 + 0.1 * step / 200 for step in range(201)]
    new_reference = [0.2 + 0.7 * step / 200 for step in range(201)]
    tenant = Distribution.seeded([0.57 + 0.03 * step / 200 for step in range(201)], weight=1000.0)
    carried = tenant.carried_over(old_reference, new_reference, weight=500.0)
    # .585, the tenant's median, is at the 85th percentile of the old reference; there the new one is at .795.
    assert carried.quantile(0.5) == pytest.approx(0.795, abs=0.01)
    assert math.fsum(carried.weights) == pytest.approx(500.0)


def test_a_distribution_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="needs some weight"):
        Distribution((0.0,) * BINS)
    with pytest.raises(ValueError, match="512 weights"):
        Distribution((1.0,))
