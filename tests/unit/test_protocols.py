"""The gold-label protocols: who is drawn, which part a row is of, and differences on the same resamples."""

import numpy as np
import pytest

from training import protocols

PASSAGES = [f"passage {place // 2}" for place in range(40)]
"""Two rows of each begin alike."""


def test_labels_and_test_rows_never_begin_alike() -> None:
    rows = np.arange(4, 40)
    seen, rest = protocols.draw_rows(PASSAGES, rows, 11, seed=3)
    assert len(seen) == 11
    assert set(seen) | set(rest) <= set(rows)
    assert not {PASSAGES[row] for row in seen} & {PASSAGES[row] for row in rest}
    # Eleven rows of pairs: one passage is cut in two, and its other row is neither.
    assert len(rest) == len(rows) - 12


def test_draws_depend_on_the_seed_alone() -> None:
    rows = np.arange(40)
    first, again, other = (protocols.draw_rows(PASSAGES, rows, 10, seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_a_row_is_of_a_part_whatever_stands_beside_it() -> None:
    groups = ["rails", "points", "signals", "sleepers"]
    # The second bytes of their SHA-256 are 0x1d, 0x4a, 0xd2, 0x91: odd ones are reported on.
    assert protocols.part_rows(groups, "report").tolist() == [0, 3]
    assert protocols.part_rows(groups, "tune").tolist() == [1, 2]
    assert protocols.part_rows(["sleepers", "points"], "report").tolist() == [0]


def test_a_draw_measures_every_method_on_the_same_rows() -> None:
    """Of four rows two gain. In the best order PGR is 1 from c = .5 on, in the worst 0 up to there.

    At c = 0, .1, …, 1 that is 0, .2, .4, .6, .8, 1, 1, … and 0, …, 0, .2, .4, .6, .8, 1: APGR .75 and .25.
    """
    gain = np.array([1.0, 0.0, 1.0, 0.0])
    best, worst = np.array([4.0, 2.0, 3.0, 1.0]), np.array([2.0, 4.0, 1.0, 3.0])
    draw = protocols.measure({"kernel": best, "twin": worst, "ridge": worst}, gain, seed=0)
    assert draw.rows == 4
    assert draw.numbers["kernel"] == pytest.approx((0.75, 0.25, 0.4))
    assert draw.numbers["ridge"] == pytest.approx((0.25, 0.75, 0.9))
    # Unpaired, equal rankings would differ by chance; on the same resamples they never do.
    known = draw.over_ridge["twin"][~np.isnan(draw.over_ridge["twin"])]
    assert len(known) > 100
    np.testing.assert_array_equal(known, 0.0)
    assert np.nanmin(draw.over_ridge["kernel"]) >= 0.0


def test_a_result_is_the_mean_over_draws_with_one_interval() -> None:
    draws = [
        protocols.Draw(10, {"kernel": (0.7, 0.2, 0.5), "ridge": (0.6, 0.3, 0.6)}, {"kernel": np.full(50, 0.1)}),
        protocols.Draw(12, {"kernel": (0.5, 0.4, 0.7), "ridge": (0.6, 0.3, 0.6)}, {"kernel": np.full(50, -0.1)}),
    ]
    result = protocols.summarise(1500, draws)
    assert (result.labels, result.rows) == (1500, 11.0)
    assert result.methods["kernel"] == pytest.approx({"apgr": 0.6, "cpt50": 0.3, "cpt80": 0.6})
    gain = result.gains["kernel"]
    assert gain.value == pytest.approx(0.0)
    assert (gain.low, gain.high) == pytest.approx((-0.1, 0.1))
    assert result.document()["gain_over_ridge"]["kernel"]["value"] == pytest.approx(0.0)
