"""Brier skill and calibration error by hand, and the error of chance on predictors that are known to be right."""

import numpy as np
import pytest

from training.metrics import Resampling
from training.reliability import brier, brier_skill, calibration_error_by_chance, reliability


def test_brier_skill_by_hand() -> None:
    """Labels 1, 0, ½, ½: base rate ½, base Brier 1/8. Predictions miss by .2, .2, 0, 0: Brier .02."""
    labels = [1.0, 0.0, 0.5, 0.5]
    assert brier([0.8, 0.2, 0.5, 0.5], labels) == pytest.approx(0.02)
    assert brier_skill([0.8, 0.2, 0.5, 0.5], labels).value == pytest.approx(1 - 0.02 / 0.125)
    assert brier_skill([0.5] * 4, labels).value == pytest.approx(0.0)
    assert brier_skill([0.9] * 4, labels).value < 0
    assert np.isnan(brier_skill([0.5, 0.6], [1.0, 1.0]).value)


def test_brier_skill_has_an_interval_that_tells_skill_from_none() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(0.2, 0.8, size=2000)
    labels = (generator.random(2000) < probabilities).astype(float)
    assert brier_skill(probabilities, labels, Resampling(2000)).above_zero
    shuffled = brier_skill(generator.permutation(probabilities), labels, Resampling(2000))
    assert not shuffled.above_zero


def test_the_reliability_bins_are_of_equal_size_and_the_error_their_mean_distance() -> None:
    plot = reliability([0.1, 0.3, 0.6, 0.8], [0.0, 0.0, 1.0, 0.5], bins=2)
    np.testing.assert_allclose(plot.predicted, [0.2, 0.7])
    np.testing.assert_allclose(plot.observed, [0.0, 0.75])
    np.testing.assert_array_equal(plot.prompts, [2, 2])
    assert plot.error == pytest.approx((0.2 + 0.05) / 2)


def test_equal_probabilities_across_a_bins_edge_share_their_labels() -> None:
    """Three prompts at .5 with labels 1, 0, 0: each bin sees a third, in whatever order the rows come."""
    for labels in ([0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]):
        plot = reliability([0.2, 0.5, 0.5, 0.5], labels, bins=2)
        np.testing.assert_allclose(plot.observed, [1 / 6, 1 / 3])


def test_fewer_prompts_than_bins_give_a_bin_each() -> None:
    assert len(reliability([0.2, 0.9], [0.0, 1.0]).prompts) == 2


@pytest.mark.parametrize("tie_share", [0.0, 0.6])
def test_a_calibrated_predictor_stays_below_the_error_of_chance_19_times_in_20(tie_share: float) -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.uniform(0.4, 0.6, size=500)
    below = 0
    for _ in range(60):
        luck = generator.random(500)
        wins = probabilities - tie_share / 2
        labels = (luck < wins) + 0.5 * ((luck >= wins) & (luck < wins + tie_share))
        limit = calibration_error_by_chance(probabilities, labels, draws=200)
        below += reliability(probabilities, labels).error <= limit
    assert below >= 52


def test_a_miscalibrated_predictor_is_above_the_error_of_chance() -> None:
    generator = np.random.default_rng(6)
    probabilities = generator.uniform(0.4, 0.6, size=2000)
    labels = (generator.random(2000) < probabilities + 0.1).astype(float)
    assert reliability(probabilities, labels).error > calibration_error_by_chance(probabilities, labels)
