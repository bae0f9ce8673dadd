"""Calibration per pair: ties count one half, ranks survive, and both ways round add up to one."""

import numpy as np
import pytest

from training import pair_curves
from training.matrices import AnswerMatrix
from training.pair_curves import MIN_LABELS

MODELS = ("a", "b", "c")


def _labelled(
    count: int, *, slope: float = 1.0, offset: float = 0.0, models: tuple[str, ...] = ("a", "b"), seed: int = 0
) -> tuple[np.ndarray, AnswerMatrix]:
    """Strengths whose difference, through a known curve, decides the first two models' answers; half are ties."""
    generator = np.random.default_rng(seed)
    strengths = generator.standard_normal((count, len(MODELS)))
    z = slope * (strengths[:, 0] - strengths[:, 1]) + offset
    won = (generator.random(count) < 1.0 / (1.0 + np.exp(-z))).astype(np.float64)
    # A tie is a coin that shows half a win: it keeps the expectation of a win where z is 0.
    quality = np.stack([won, 1.0 - won], axis=1)
    return strengths, AnswerMatrix("m", tuple("p" * count), models, quality)


def test_a_curve_finds_the_slope_and_offset_that_made_the_labels() -> None:
    strengths, matrix = _labelled(20_000, slope=1.7, offset=0.4)
    curves = pair_curves.fit([strengths], [matrix], MODELS, ("a", "b"))
    assert curves.slopes[0, 1] == pytest.approx(1.7, abs=0.08)
    assert curves.offsets[0, 1] == pytest.approx(0.4, abs=0.06)


def test_both_ways_round_add_up_to_one() -> None:
    strengths, matrix = _labelled(500, offset=0.3)
    curves = pair_curves.fit([strengths], [matrix], MODELS, ("a", "b"))
    z = strengths[:, 0] - strengths[:, 1]
    np.testing.assert_allclose(curves(z, 0, 1) + curves(-z, 1, 0), 1.0, atol=1e-12)
    assert curves.pairs(MODELS) == {("a", "b"), ("b", "a")}


def test_ties_count_one_half() -> None:
    strengths = np.zeros((400, 3))
    quality = np.zeros((400, 2))
    quality[:100, 0] = 1.0  # 100 wins of a, 300 ties: (100 + 150) / 400
    curves = pair_curves.fit(
        [strengths], [AnswerMatrix("m", tuple("p" * 400), ("a", "b"), quality)], MODELS, ("a", "c")
    )
    # Strengths that never differ carry no slope, so that the pair keeps the common curve: one half.
    assert curves(np.zeros(1), 0, 1)[0] == pytest.approx(0.5)
    strengths[:, 0] = np.random.default_rng(0).standard_normal(400) * 0.01 + quality[:, 0]
    curves = pair_curves.fit(
        [strengths], [AnswerMatrix("m", tuple("p" * 400), ("a", "b"), quality)], MODELS, ("a", "c")
    )
    assert curves(strengths[:, 0], 0, 1).mean() == pytest.approx(0.625, abs=1e-3)


def test_a_pair_with_few_labels_is_not_called_calibrated() -> None:
    strengths, matrix = _labelled(MIN_LABELS - 1)
    few = pair_curves.fit([strengths], [matrix], MODELS, ("a", "c"))
    assert not few.calibrated.any()
    strengths, matrix = _labelled(MIN_LABELS)
    enough = pair_curves.fit([strengths], [matrix], MODELS, ("a", "c"))
    assert enough.pairs(MODELS) == {("a", "b"), ("b", "a")}


def test_every_slope_is_positive_even_where_the_labels_say_the_opposite() -> None:
    strengths, matrix = _labelled(1_000, slope=-1.0)
    curves = pair_curves.fit([strengths], [matrix], MODELS, ("a", "c"))
    assert (curves.slopes > 0).all()
    assert not curves.calibrated.any()


def test_labels_of_the_served_pair_alone_set_its_curve() -> None:
    """Sets of many models are other traffic; a file that holds nothing but the pair is the traffic to come."""
    other = _labelled(2_000, offset=-1.0, models=("a", "b"), seed=1)
    three = AnswerMatrix("m", other[1].prompts, MODELS, np.column_stack([other[1].quality, np.full(2_000, np.nan)]))
    own = _labelled(20_000, offset=0.8, seed=2)
    curves = pair_curves.fit([other[0], own[0]], [three, own[1]], MODELS, ("a", "b"))
    assert curves.offsets[0, 1] == pytest.approx(0.8, abs=0.06)
