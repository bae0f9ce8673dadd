"""The decision rule (RouteLLM, section 3.1) and the share dial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service import exchange
from dispatcher_service.routing import (
    EVEN,
    NEVER_STRONG,
    Candidates,
    Ladder,
    ModelPair,
    Objective,
    Reason,
    Tier,
    alpha_for_share,
    decide,
    decide_among,
    forced,
)

probabilities = st.floats(0, 1)


@st.composite
def candidates(draw: st.DrawFn, objective: Objective = Objective.THRESHOLD) -> Candidates:
    """Up to seven models of which the last is the strongest, costs ascending or not."""
    count = draw(st.integers(1, 6))
    beaten = draw(st.lists(probabilities, min_size=count, max_size=count))
    between = draw(st.lists(probabilities, min_size=count - 1, max_size=count - 1))
    return Candidates(
        rungs=tuple(range(count + 1)),
        beaten=(*beaten, EVEN),
        fractions=(0.0, *between, 1.0),
        top=count,
        objective=objective,
    )


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


def test_the_cheapest_model_that_the_strongest_beats_too_seldom_is_taken() -> None:
    many = Candidates(rungs=(0, 1, 2, 3), beaten=(0.7, 0.55, 0.52, 0.5), top=3)
    found = [decide_among(many, alpha=alpha) for alpha in (0.71, 0.7, 0.56, 0.55, 0.52, 0.5, 0.0, NEVER_STRONG)]
    assert [decision.rung for decision in found] == [0, 1, 1, 2, 3, 3, 3, 0]
    assert [decision.tier for decision in found[:5:2]] == [Tier.WEAK, Tier.MIDDLE, Tier.STRONG]
    assert [decision.reason for decision in found[2:5]] == [
        Reason.BELOW_ALPHA,
        Reason.BELOW_ALPHA,
        Reason.AT_OR_ABOVE_ALPHA,
    ]
    assert {decision.win_probability for decision in found} == {0.7}


def test_a_dearer_model_that_is_weaker_for_this_prompt_is_passed_over() -> None:
    many = Candidates(rungs=(0, 1, 2), beaten=(0.52, 0.6, 0.5), top=2)
    assert decide_among(many, alpha=0.55).rung == 0
    assert decide_among(many, alpha=0.51).rung == 2


def test_without_the_strongest_the_dearest_that_is_left_stands_for_it() -> None:
    left = Candidates(rungs=(0, 1), beaten=(0.8, 0.6), top=2)
    assert decide_among(left, alpha=0.55).rung == 1
    assert decide_among(left, alpha=0.55).tier is Tier.MIDDLE


def test_utility_is_quality_less_lambda_times_the_cost() -> None:
    # By hand, quality - λ·x with λ = .6 - ½: .3 - 0, .45 - .02, .5 - .1.
    many = Candidates(
        rungs=(0, 1, 2), beaten=(0.7, 0.55, 0.5), fractions=(0.0, 0.2, 1.0), top=2, objective=Objective.UTILITY
    )
    decision = decide_among(many, alpha=0.6)
    assert (decision.rung, decision.reason) == (1, Reason.BEST_UTILITY)
    # The last step brings .05 of quality for .8 of the way: λ = .0625.
    assert [decide_among(many, alpha=alpha).rung for alpha in (0.0, 0.562, 0.563, 0.99, NEVER_STRONG)] == [
        2,
        2,
        1,
        0,
        0,
    ]
    # The first is given up for .15 of quality at a fifth of the way: λ = .75, beyond the straight part.
    assert exchange.rate(many.need) == pytest.approx(0.75)
    assert decide_among(many, alpha=many.need - 1e-9).rung == 1
    assert decide_among(many, alpha=many.need + 1e-9).rung == 0


@given(candidates(), probabilities, probabilities)
def test_of_many_models_too_a_higher_alpha_never_takes_a_higher_rung(many: Candidates, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    assert decide_among(many, alpha=high).rung <= decide_among(many, alpha=low).rung


@given(candidates(Objective.UTILITY), probabilities, probabilities)
def test_under_utility_a_higher_alpha_never_costs_more(many: Candidates, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    dearer, cheaper = (many.fractions[decide_among(many, alpha=alpha).rung] for alpha in (low, high))
    assert cheaper <= dearer


@given(st.sampled_from(Objective).flatmap(candidates))
def test_the_ends_of_alpha_are_the_ends_of_the_ladder(many: Candidates) -> None:
    assert decide_among(many, alpha=0.0).rung == many.top
    assert decide_among(many, alpha=NEVER_STRONG).rung == 0
    assert 0.0 <= many.need <= 1.0


@given(probabilities, probabilities)
def test_the_exchange_rate_rises_with_alpha_and_is_finite(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    assert exchange.rate(low) <= exchange.rate(high)
    assert exchange.rate(1.0) == pytest.approx(1e6, rel=1e-6)
    assert exchange.rate(0.0) == -exchange.rate(1.0)
    assert exchange.rate(0.6) == pytest.approx(0.1)


def test_a_forced_decision_has_no_numbers() -> None:
    decision = forced(Ladder(("w", "s")), 1, Reason.SCORER_UNAVAILABLE)
    assert (decision.tier, decision.alpha, decision.win_probability) == (Tier.STRONG, None, None)


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


def test_a_rung_has_a_tier_and_a_cost_to_compare_with() -> None:
    ladder = Ladder(("a", "b", "c"), known_as=("A", "b", "C"))
    assert [ladder.tier(rung) for rung in range(3)] == [Tier.WEAK, Tier.MIDDLE, Tier.STRONG]
    assert [ladder.other(rung) for rung in range(3)] == [2, 2, 0]
    assert (ladder.weak, ladder.strong, ladder.rung("b"), ladder.rung("x")) == ("a", "c", 1, None)
    assert ladder.ends == ModelPair(strong="C", weak="A")
