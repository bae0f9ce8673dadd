"""The decision rule (RouteLLM, section 3.1) and the share dial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.routing import NEVER_STRONG, ModelPair, Reason, Tier, alpha_for_share, decide, forced

probabilities = st.floats(0, 1)


def test_a_tie_with_alpha_goes_to_strong() -> None:
    decision = decide(0.5, alpha=0.5)
    assert (decision.tier, decision.reason) == (Tier.STRONG, Reason.AT_OR_ABOVE_ALPHA)


def test_below_alpha_goes_to_weak() -> None:
    decision = decide(0.4999, alpha=0.5)
    assert (decision.tier, decision.reason) == (Tier.WEAK, Reason.BELOW_ALPHA)


@given(p=probabilities, low=probabilities, high=probabilities)
def test_a_higher_alpha_is_never_more_expensive(p: float, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    if decide(p, alpha=low).tier is Tier.WEAK:
        assert decide(p, alpha=high).tier is Tier.WEAK


def test_no_win_probability_reaches_never_strong() -> None:
    assert decide(1.0, alpha=NEVER_STRONG).tier is Tier.WEAK


def test_alpha_zero_sends_everything_strong() -> None:
    assert decide(0.0, alpha=0.0).tier is Tier.STRONG


def test_a_forced_decision_has_no_numbers() -> None:
    decision = forced(Tier.STRONG, Reason.SCORER_UNAVAILABLE)
    assert (decision.alpha, decision.win_probability) == (None, None)


@pytest.mark.parametrize(
    ("share", "alpha"),
    # Levels 0, ¼, ½, ¾, 1: a share of .3 is the level .7, four fifths of the way from .3 to .5.
    [(0.25, 0.5), (0.5, 0.3), (0.3, 0.3 + 0.8 * 0.2), (1.0, 0.0), (0.0, NEVER_STRONG)],
)
def test_the_alpha_of_a_share_is_the_quantile_above_which_that_share_lies(share: float, alpha: float) -> None:
    assert alpha_for_share([0.1, 0.2, 0.3, 0.5, 0.9], share) == pytest.approx(alpha, abs=1e-12)


@given(scores=st.lists(probabilities, min_size=2, max_size=50), low=probabilities, high=probabilities)
def test_a_greater_share_never_has_a_greater_alpha(scores: list[float], low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    quantiles = sorted(scores)
    assert alpha_for_share(quantiles, high) <= alpha_for_share(quantiles, low) + 1e-12


def test_a_share_on_its_own_quantiles_sends_that_share_strong() -> None:
    quantiles = [index / 200 for index in range(201)]
    alpha = alpha_for_share(quantiles, 0.2)
    strong = sum(decide(score / 10_000, alpha=alpha).tier is Tier.STRONG for score in range(10_000))
    assert strong / 10_000 == pytest.approx(0.2, abs=1e-3)


def test_a_pair_names_the_model_of_a_tier() -> None:
    pair = ModelPair(strong="s", weak="w")
    assert [pair.of(tier) for tier in (Tier.STRONG, Tier.WEAK)] == ["s", "w"]
    assert pair.of(Tier.STRONG.other) == "w"
