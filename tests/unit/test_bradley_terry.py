"""Strengths on tables that can be solved by hand, and against an independent logistic regression."""

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from training.bradley_terry import ELO_SCALE, NotComparableError, fit, win_probability


def wins_of(
    a: ArrayLike, b: ArrayLike, score: ArrayLike, *, models: int, weights: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """Wins of row over column, [models, models], from battles of a and b that a scored 1, ½ or 0 in."""
    wins = np.zeros((models, models))
    np.add.at(wins, (np.asarray(a), np.asarray(b)), np.asarray(weights) * np.asarray(score))
    np.add.at(wins, (np.asarray(b), np.asarray(a)), np.asarray(weights) * (1 - np.asarray(score)))
    return wins


def test_three_wins_and_a_tie_are_odds_of_seven_to_one() -> None:
    """Wins 3.5 against 0.5; in Elo points 400·log10(7) = 338."""
    wins = wins_of([0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0.5], models=2)
    np.testing.assert_allclose(wins, [[0, 3.5], [0.5, 0]])
    strengths = fit(wins)
    np.testing.assert_allclose(strengths, [np.log(7) / 2, -np.log(7) / 2])
    assert (strengths[0] - strengths[1]) * ELO_SCALE == pytest.approx(338.04, abs=0.01)


def test_a_table_of_three_models_with_ties_by_hand() -> None:
    """A beats B once and ties twice (2:1), B and C likewise, A beats C 4 times in 5 (4:1): strengths 4 : 2 : 1."""
    a = [0, 0, 0, 1, 1, 1] + [0] * 5
    b = [1, 1, 1, 2, 2, 2] + [2] * 5
    score = [1, 0.5, 0.5, 1, 0.5, 0.5, 1, 1, 1, 1, 0]
    strengths = fit(wins_of(a, b, score, models=3))
    np.testing.assert_allclose(strengths, [np.log(2), 0.0, -np.log(2)], atol=1e-9)
    assert win_probability(strengths[0], strengths[2]) == pytest.approx(0.8)


def test_the_fit_is_the_logistic_regression_that_the_paper_solves() -> None:
    """Each battle twice, a tie once as each side's win (RouteLLM's reference), without penalty."""
    generator = np.random.default_rng(0)
    battles, models = 3000, 7
    a = generator.integers(0, models, battles)
    b = (a + generator.integers(1, models, battles)) % models
    truth = np.linspace(1.2, -1.2, models)
    score = np.where(
        generator.random(battles) < 0.3, 0.5, generator.random(battles) < win_probability(truth[a], truth[b])
    )
    weights = generator.uniform(1, 100, battles)
    design = np.zeros((2 * battles, models))
    rows = np.arange(battles)
    for half in (0, battles):
        design[half + rows, a], design[half + rows, b] = 1.0, -1.0
    labels = np.concatenate([score > 0, score == 1.0])
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    reference.fit(design, labels, sample_weight=np.tile(weights, 2))
    expected = reference.coef_[0] - reference.coef_[0].mean()
    np.testing.assert_allclose(fit(wins_of(a, b, score, models=models, weights=weights)), expected, atol=1e-4)


def test_a_model_that_never_loses_needs_a_prior() -> None:
    wins = wins_of([0, 0, 1, 2], [1, 2, 2, 1], [1, 1, 1, 1], models=3)
    with pytest.raises(NotComparableError, match="give a prior"):
        fit(wins)
    strengths = fit(wins, prior=1.0)
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[1] == pytest.approx(strengths[2])


def test_one_sided_records_converge_too() -> None:
    """9,999 wins in 10,000: far from where the first step starts."""
    strengths = fit([[0, 9999.0], [1.0, 0]])
    assert strengths[0] - strengths[1] == pytest.approx(np.log(9999))
