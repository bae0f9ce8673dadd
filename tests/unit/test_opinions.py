"""Opinions as labels: by hand, and that they find again what was put in."""

import numpy as np
import pytest

from training import opinions
from training.opinions import Decided


def decided(count: int, **columns: object) -> Decided:
    """Records of one group at one win probability, weak and silent unless said otherwise."""
    values: dict[str, object] = {
        "group": np.zeros(count, np.int64),
        "win_probability": np.full(count, 0.5),
        "strong": np.zeros(count, bool),
        "by_chance": np.ones(count, bool),
        "rating": np.full(count, np.nan),
        "preference": np.full(count, np.nan),
    }
    return Decided(**(values | columns))  # type: ignore[arg-type]


def test_the_label_of_a_rating_by_hand() -> None:
    """Strong rated 1, 1, 0 and weak 0: e = 3/4, means 2/3 and 0.

    y = 1/2 + 1/2 (2/3 + (r - 2/3) / (3/4)) for strong: 1/2 + 1/2 (2/3 + 4/9) = 19/18 for thumbs up, and
    1/2 + 1/2 (2/3 - 8/9) = 7/18 for thumbs down; 1/2 + 1/2 (2/3) = 15/18 for weak.
    """
    found = opinions.pseudo_outcomes(np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, True, True, False]))
    assert found * 18 == pytest.approx([19, 19, 7, 15])
    # Their mean is one half plus half the difference of the models' means.
    assert found.mean() == pytest.approx(0.5 + 0.5 * (2 / 3 - 0))


def test_a_preference_is_its_own_label_and_stands_for_the_silent_ones_beside_it() -> None:
    """Two strata of 50 by win probability; one of the first speaks, two of the second."""
    preference = np.full(100, np.nan)
    preference[[3, 60, 70]] = 1.0, 0.5, 0.0
    records = decided(100, win_probability=np.repeat([0.2, 0.8], 50), preference=preference)
    found = opinions.lessons(records)
    assert found.rows.tolist() == [3, 60, 70]
    assert found.labels.tolist() == [1.0, 0.5, 0.0]
    assert found.weights == pytest.approx([1.5, 0.75, 0.75])  # 50, 25, 25, of mean 1
    assert found.effective == pytest.approx(100**2 / (50**2 + 25**2 + 25**2))


def test_ratings_count_as_far_as_both_models_answered() -> None:
    """e = 1/5: a rating counts 4 · 1/5 · 4/5 = 0.64 of a preference."""
    rating, preference = np.full(25, np.nan), np.full(25, np.nan)
    rating[:5], preference[5] = (1.0, 0.0, 0.0, 1.0, 0.0), 1.0
    found = opinions.lessons(decided(25, strong=np.arange(25) == 0, rating=rating, preference=preference))
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.weights[:5] / found.weights[5] == pytest.approx(0.64)


def test_where_one_model_answered_everything_a_rating_says_nothing() -> None:
    rating = np.where(np.arange(30) < 20, 1.0, np.nan)
    found = opinions.lessons(decided(30, rating=rating))
    assert (len(found.rows), found.one_sided, found.effective) == (0, 20, 0.0)


def test_what_an_earlier_turn_chose_is_no_chance() -> None:
    strong, rating = np.arange(40) % 2 == 0, np.ones(40)
    by_chance = np.arange(40) >= 10
    found = opinions.lessons(decided(40, strong=strong, rating=rating, by_chance=by_chance))
    assert found.not_by_chance == 10
    assert found.rows.tolist() == list(range(10, 40))


def test_one_voice_among_many_does_not_drown_the_rest() -> None:
    """One stratum of 500 with one opinion, nineteen with 500 each: its weight is cut at ten means."""
    preference = np.full(10_000, np.nan)
    preference[0] = 1.0
    preference[500:] = 0.5
    found = opinions.lessons(decided(10_000, win_probability=np.arange(10_000) / 10_000, preference=preference))
    assert found.cut == 1
    assert found.weights[0] / found.weights[1] == pytest.approx(10.0, rel=0.1)


def test_groups_have_strata_of_their_own_and_equal_probabilities_stay_together() -> None:
    group = np.repeat([0, 1], 60)
    probability = np.concatenate([np.linspace(0, 1, 60), np.full(60, 0.5)])
    found = opinions.strata(group, probability)
    assert found[:60].tolist() == [0] * 30 + [1] * 30
    assert set(found[60:]) == {2}


def test_a_biased_log_gives_back_what_was_put_in() -> None:
    """The worth of the strong model rises with a feature z that the running scorer does not know.

    Strong answers mostly high probabilities, and people rate strong answers three times as often. The plain difference
    of ratings mixes all that; the weighted labels give the truth of each half of z.
    """
    generator = np.random.default_rng(0)
    count = 40_000
    p, z = generator.random(count), generator.random(count) < 0.5
    strong = generator.random(count) < 0.2 + 0.6 * p
    good = np.where(strong, 0.5 + 0.3 * z + 0.1 * p, 0.5 - 0.3 * p)
    rating = (generator.random(count) < good).astype(float)
    rating[generator.random(count) > np.where(strong, 0.3, 0.1)] = np.nan
    found = opinions.lessons(decided(count, win_probability=p, strong=strong, rating=rating))
    assert found.one_sided == 0
    for half in (False, True):
        mine = z[found.rows] == half
        label = np.average(found.labels[mine], weights=found.weights[mine])
        # The gain is .3 z + .4 p, and every stratum of p weighs alike: .2 in the mean.
        assert label == pytest.approx(0.5 + 0.5 * (0.3 * half + 0.2), abs=0.02)
