"""The rules of a cascade."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service import routing
from dispatcher_service.cascading import Zone, accepts, best, zone
from dispatcher_service.routing import NEVER_STRONG, Tier

PROBABILITY = st.floats(0, 1)


@given(PROBABILITY, PROBABILITY)
def test_two_equal_alphas_are_plain_routing(win_probability: float, alpha: float) -> None:
    strong = routing.decide(win_probability, alpha=alpha).tier is Tier.STRONG
    assert zone(win_probability, easy_alpha=alpha, hard_alpha=alpha) is (Zone.HARD if strong else Zone.EASY)


@given(PROBABILITY)
def test_without_alphas_everything_cascades(win_probability: float) -> None:
    assert zone(win_probability, easy_alpha=0.0, hard_alpha=NEVER_STRONG) is Zone.MIDDLE


def test_a_tie_with_the_hard_alpha_is_hard_and_one_with_the_easy_alpha_is_not_easy() -> None:
    assert zone(0.7, easy_alpha=0.4, hard_alpha=0.7) is Zone.HARD
    assert zone(0.4, easy_alpha=0.4, hard_alpha=0.7) is Zone.MIDDLE


def test_a_tie_with_the_threshold_is_accepted() -> None:
    assert accepts(0.5, threshold=0.5)
    assert not accepts(0.49, threshold=0.5)
    assert accepts(0.0, threshold=0.0)


@pytest.mark.parametrize(
    ("acceptances", "expected"),
    [([0.3], 0), ([0.3, 0.2], 0), ([0.3, 0.3], 1), ([None, 0.0], 1), ([0.1, None], 0), ([None, None], 1)],
)
def test_the_answer_that_is_most_likely_acceptable_is_given(acceptances: list[float | None], expected: int) -> None:
    assert best(acceptances) == expected
