"""PGR, APGR and CPT on examples that can be followed by hand, and the bootstrap against a plain loop."""

import random as random_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import metrics
from training.metrics import CPT_LEVELS, Interval, NoGapError, PgrCurve, Resampling, apgr, pgr_curve, ranking_draws


def test_the_curve_of_four_prompts_by_hand() -> None:
    """Gap 2: the first call recovers half of it, the second nothing, the third loses half, the fourth wins both."""
    curve = pgr_curve([0.9, 0.8, 0.7, 0.6], [1.0, 0.0, -1.0, 2.0])
    np.testing.assert_allclose(curve.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.pgr, [0, 0.5, 0.5, 0.0, 1])
    np.testing.assert_allclose(curve.at([0.1, 0.6, 0.8]), [0.2, 0.3, 0.2])
    # .0 .2 .4 .5 .5 .5 .3 .1 .2 .6 1.0 at the eleven shares: their sum less half of the ends, over ten.
    assert curve.apgr() == pytest.approx((0.2 + 0.4 + 0.5 + 0.5 + 0.5 + 0.3 + 0.1 + 0.2 + 0.6 + 1.0 / 2) / 10)


def test_cpt_is_the_first_crossing_of_a_curve_that_falls_again() -> None:
    curve = pgr_curve([0.9, 0.8, 0.7, 0.6], [1.0, 0.0, -1.0, 2.0])
    assert curve.cpt(0.2) == pytest.approx(0.1)
    assert curve.cpt(0.5) == pytest.approx(0.25)
    assert curve.cpt(0.8) == pytest.approx(0.75 + 0.25 * 0.8)
    assert curve.cpt(1.0) == pytest.approx(1.0)
    assert curve.cpt(0.0) == 0.0


def test_cpt_starts_from_below_when_the_curve_dips_under_zero() -> None:
    curve = pgr_curve([3, 2, 1], [-1.0, 2.0, 1.0])
    np.testing.assert_allclose(curve.pgr, [0, -0.5, 0.5, 1])
    assert curve.cpt(0.5) == pytest.approx(2 / 3)
    assert curve.cpt(0.25) == pytest.approx(1 / 3 + 0.75 / 3)


def test_a_curve_may_rise_above_the_whole_gap() -> None:
    """An oracle leaves the prompts on which the strong model is worse to the weak one."""
    gain = [1.0, 1.0, 0.0, -1.0]
    curve = pgr_curve(metrics.oracle_scores(gain), gain)
    np.testing.assert_allclose(curve.shares, [0, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.pgr, [0, 2, 2, 1])
    assert curve.cpt(0.8) == pytest.approx(0.2)


def test_ties_are_one_block_whose_gain_comes_in_evenly() -> None:
    """Whatever the order of rows: three tied prompts with a gain of 1 in all, then one that has the other 1."""
    for gain in ([1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [-1.0, 2.0, 0.0, 1.0]):
        curve = pgr_curve([0.5, 0.5, 0.5, 0.1], gain)
        np.testing.assert_allclose(curve.shares, [0, 0.75, 1])
        np.testing.assert_allclose(curve.pgr, [0, 0.5, 1])
        assert curve.cpt(0.2) == pytest.approx(0.3)


def test_a_constant_score_is_a_random_order() -> None:
    constant = pgr_curve(np.ones(7), [0, 1, 0, -1, 1, 1, 0])
    assert constant.apgr() == pytest.approx(0.5)
    assert constant.cpt(0.8) == pytest.approx(0.8)


def test_the_random_baseline_is_one_half() -> None:
    generator = np.random.default_rng(5)
    gain = generator.choice([-1.0, 0.0, 1.0], size=20_000, p=[0.06, 0.77, 0.17])
    runs = [apgr(scores, gain) for scores in metrics.random_scores(len(gain))]
    assert np.mean(runs) == pytest.approx(0.5, abs=0.01)


def test_without_a_gap_there_is_no_pgr() -> None:
    with pytest.raises(NoGapError, match="no gap"):
        apgr([1, 2], [1.0, -1.0])
    with pytest.raises(ValueError, match="one of each per prompt"):
        pgr_curve([1, 2, 3], [1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        pgr_curve([1, np.nan], [1.0, 1.0])


def test_bootstrap_draws_are_the_numbers_of_each_resampled_set_of_rows() -> None:
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 12, size=40) / 12  # with many ties
    gain = generator.choice([-1.0, 0.0, 1.0], size=40, p=[0.1, 0.4, 0.5])
    resampling = Resampling(40, draws=50, seed=3)
    drawn = ranking_draws(scores, gain, resampling)
    [counts] = resampling.counts()
    for row, count in enumerate(counts):
        curve = pgr_curve(np.repeat(scores, count), np.repeat(gain, count))
        assert drawn.apgr[row] == pytest.approx(curve.apgr())
        np.testing.assert_allclose(drawn.cpt[row], [curve.cpt(level) for level in CPT_LEVELS])
        np.testing.assert_allclose(drawn.pgr[row], curve.at(metrics.SHARES))


def test_resamples_are_the_same_for_a_seed_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(Resampling(30, draws=20, seed=7).counts()))
    monkeypatch.setattr(metrics, "_CELLS", 100)
    np.testing.assert_array_equal(np.concatenate(list(Resampling(30, draws=20, seed=7).counts())), whole)
    assert (whole.sum(axis=1) == 30).all()


def test_rows_of_one_group_are_drawn_together() -> None:
    """Each prompt copied four times: with groups, the interval is that of the prompts; without, half as wide."""
    generator = np.random.default_rng(8)
    scores, gain = generator.random(150), generator.choice([-1.0, 0.0, 1.0], size=150, p=[0.1, 0.5, 0.4])
    once = ranking_draws(scores, gain, Resampling(150))
    copied, copied_gain, groups = np.tile(scores, 4), np.tile(gain, 4), np.tile(np.arange(150), 4)
    together = ranking_draws(copied, copied_gain, Resampling(600, groups=groups))
    np.testing.assert_allclose(together.apgr, once.apgr)
    np.testing.assert_allclose(together.cpt, once.cpt)
    apart = ranking_draws(copied, copied_gain, Resampling(600))
    assert np.std(apart.apgr) == pytest.approx(np.std(once.apgr) / 2, rel=0.15)


def test_groups_may_differ_in_size() -> None:
    scores, gain, groups = np.array([4, 3, 2, 1, 0]), np.array([1.0, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 2])
    resampling = Resampling(5, draws=40, groups=groups)
    drawn = ranking_draws(scores, gain, resampling)
    [counts] = resampling.counts()
    for row, count in enumerate(counts):
        curve = pgr_curve(np.repeat(scores, count), np.repeat(gain, count)) if gain @ count else None
        assert drawn.apgr[row] == pytest.approx(np.nan if curve is None else curve.apgr(), nan_ok=True)


def test_a_resample_without_a_gap_is_left_out_of_the_interval() -> None:
    drawn = ranking_draws([2, 1], [1.0, 0.0], Resampling(2, draws=200))
    assert np.isnan(drawn.apgr).mean() == pytest.approx(0.25, abs=0.1)  # both draws are the second row
    found = metrics.interval(0.75, drawn.apgr)
    assert np.isfinite([found.low, found.high]).all()


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Gains are drawn with P(gain) = score: the true APGR follows from 200,000 prompts."""
    generator = np.random.default_rng(2)

    def sample(size: int) -> tuple[np.ndarray, np.ndarray]:
        scores = generator.random(size)
        return scores, (generator.random(size) < scores).astype(float)

    truth = apgr(*sample(200_000))
    held = 0
    for seed in range(60):
        scores, gain = sample(300)
        found = metrics.interval(apgr(scores, gain), ranking_draws(scores, gain, Resampling(300, 300, seed)).apgr)
        held += found.low <= truth <= found.high
    assert held >= 52


def test_a_paired_difference_is_sharper_than_its_two_sides() -> None:
    """Two routers that differ in noise only: prompts that are hard for one are hard for the other."""
    generator = np.random.default_rng(4)
    gain = generator.choice([-1.0, 0.0, 1.0], size=500, p=[0.1, 0.6, 0.3])
    better = gain + generator.normal(scale=1.5, size=500)
    worse = better + generator.normal(scale=0.7, size=500)
    resampling = Resampling(500)
    first, second = ranking_draws(better, gain, resampling).apgr, ranking_draws(worse, gain, resampling).apgr
    assert np.std(first - second) < 0.8 * np.hypot(np.std(first), np.std(second))
    same = metrics.interval(0.0, first - ranking_draws(better, gain, resampling).apgr)
    assert same == Interval(0.0, 0.0, 0.0)
    assert not same.above_zero


def test_cost_saved_compares_with_random_routing_of_the_same_quality() -> None:
    """At prices 10 and 1: 30 % strong costs 3.7, and random routing to half of the gap 5.5."""
    assert metrics.cost_of_share(0.3, strong_price=10, weak_price=1) == pytest.approx(0.37)
    assert metrics.cost_saved(0.3, 0.5, strong_price=10, weak_price=1) == pytest.approx(1 - 3.7 / 5.5)
    assert metrics.cost_saved(0.5, 0.5, strong_price=10, weak_price=1) == pytest.approx(0.0)


def test_the_length_baseline_counts_characters() -> None:
    np.testing.assert_array_equal(metrics.length_scores(["é", "", "two words"]), [1, 0, 9])


def test_a_curve_knows_its_values_between_points() -> None:
    assert PgrCurve(np.array([0.0, 1.0]), np.array([0.0, 1.0])).at(0.4) == pytest.approx(0.4)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1.0, 0.0, 1.0])), min_size=1, max_size=30).filter(
        lambda rows: sum(gain for _, gain in rows) > 0
    ),
    st.randoms(use_true_random=False),
)
def test_neither_the_order_of_rows_nor_the_scale_of_scores_matters(
    rows: list[tuple[int, float]], random: random_module.Random
) -> None:
    curve = pgr_curve(*zip(*rows, strict=True))
    shuffled = random.sample(rows, len(rows))
    other = pgr_curve([score**3 - 7 for score, _ in shuffled], [gain for _, gain in shuffled])
    np.testing.assert_allclose(curve.pgr, other.pgr)
    assert curve.apgr() == pytest.approx(other.apgr())
    for level in CPT_LEVELS:
        assert curve.cpt(level) == pytest.approx(other.cpt(level))
        assert curve.at(curve.cpt(level)) == pytest.approx(level)


def test_a_row_of_weight_two_counts_as_two() -> None:
    scores, gain, weights = [3.0, 2.0, 1.0, 0.5], [1.0, -1.0, 1.0, 0.0], [2.0, 1.0, 1.0, 1.0]
    repeated = pgr_curve([3.0, 3.0, 2.0, 1.0, 0.5], [1.0, 1.0, -1.0, 1.0, 0.0])
    weighted = pgr_curve(scores, gain, weights)
    assert weighted.pgr == pytest.approx(repeated.pgr)
    assert weighted.shares == pytest.approx(repeated.shares)
    # Every resample weighs its rows too.
    plain, heavy = (
        np.concatenate(list(Resampling(4, 20, weights=each).counts())) for each in (None, np.array(weights))
    )
    np.testing.assert_array_equal(heavy, plain * weights)
