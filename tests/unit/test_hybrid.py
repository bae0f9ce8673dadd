"""Hybrid-LLM's labels and t* on an example worked by hand."""

import itertools

import numpy as np
import pytest

from training import hybrid
from training.hybrid import Kind

STRONG = [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]
WEAK = [[4.0, 4.0], [3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]
"""The weak answers are behind by {1}, {0, 2}, {3} and {4}, each on half or all of the pairs of samples."""


def test_deterministic_labels_compare_the_first_samples() -> None:
    np.testing.assert_array_equal(
        hybrid.labels([[1.0, 9.0], [2.0, 0.0]], [[1.0], [1.0]], Kind.DETERMINISTIC).labels, [1, 0]
    )


def test_probabilistic_labels_count_pairs_of_samples() -> None:
    found = hybrid.labels(STRONG, WEAK, Kind.PROBABILISTIC)
    np.testing.assert_allclose(found.labels, [0.0, 0.5, 0.0, 0.0])
    assert found.t == 0.0


def test_t_star_spreads_the_labels_most() -> None:
    """Labels and mean |difference| over 16 ordered pairs, by hand:
    t=0: 0 ½ 0 0 -> 3/16; t=1: 1 ½ 0 0 -> 7/16; t=2: 1 1 0 0 -> 8/16; t=3: 1 1 1 0 -> 6/16; t=4: all 1 -> 0.
    """
    behind = np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    by_hand = {0: 3 / 16, 1: 7 / 16, 2: 8 / 16, 3: 6 / 16, 4: 0.0}
    for t, spread in by_hand.items():
        assert hybrid.mean_pairwise_difference(np.mean(behind <= t, axis=1)) == pytest.approx(spread)
    found = hybrid.labels(STRONG, WEAK, Kind.TRANSFORMED)
    assert found.t == 2.0
    np.testing.assert_allclose(found.labels, [1, 1, 0, 0])


def test_the_mean_difference_is_that_of_all_pairs() -> None:
    values = np.random.default_rng(0).random(40)
    expected = np.mean([abs(a - b) for a, b in itertools.product(values, values)])
    assert hybrid.mean_pairwise_difference(values) == pytest.approx(expected)


def test_of_many_differences_the_best_slack_is_found_closely() -> None:
    """Weak answers are behind by a normal of mean 3 and sd 1: half are within 3, which is where labels differ most."""
    generator = np.random.default_rng(1)
    weak = 10 - generator.normal(3.0, 1.0, (400, 1)) + generator.normal(0, 0.05, (400, 10))
    found = hybrid.labels(np.full((400, 10), 10.0), weak, Kind.TRANSFORMED)
    assert found.t == pytest.approx(3.0, abs=0.15)
