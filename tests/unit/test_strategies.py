"""Plans of every strategy: what they cost and give, on numbers small enough to count by hand."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from dispatcher_service.routing import NEVER_STRONG
from training import strategies, strategy_fits, strategy_plans, strategy_plot, strategy_report
from training.strategies import CASCADE, ENSEMBLE, HYBRID, ORACLE, ROUTE
from training.strategy_fits import LEVELS
from training.strategy_plans import Ensemble, Hybrid, Route
from training.strategy_rows import Scored

Floats = NDArray[np.float64]

USD = {"weak": 0.6, "strong": 10.0}


def _pair(
    quality: Floats, cost: Floats, win_probability: Floats, acceptance: Floats, strong_preferred: Floats
) -> Scored:
    """What is known of two models' answers."""
    even = np.full(len(cost), 0.5)
    beaten = np.stack([win_probability, even], axis=1)
    return Scored(quality, cost, beaten, acceptance[:, None], 1.0 - strong_preferred[:, None])


ROWS = _pair(
    quality=np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
    cost=np.array([[1.0, 10.0]] * 4),
    win_probability=np.array([0.2, 0.8, 0.4, 0.6]),
    acceptance=np.array([0.9, 0.1, 0.7, 0.3]),
    strong_preferred=np.array([0.5, 0.9, 0.2, 0.6]),
)
THREE = Scored(
    quality=np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
    cost=np.array([[1.0, 4.0, 10.0]] * 4),
    beaten=np.array([[0.2, 0.1, 0.5], [0.7, 0.4, 0.5], [0.9, 0.8, 0.5], [0.6, np.nan, 0.5]]),
    acceptances=np.array([[0.9, 0.9], [0.3, 0.8], [0.2, 0.4], [0.4, 0.5]]),
    preferences=np.array([[0.5, 0.5, 0.5], [0.2, 0.2, 0.6], [0.5, 0.1, 0.2], [0.9, 0.9, 0.5]]),
)


def test_a_route_costs_one_call_each_and_a_tie_with_alpha_goes_strong() -> None:
    outcome = Route(0.6).run(ROWS)
    assert outcome.strong_called.tolist() == [False, True, False, True]
    assert outcome.cost.tolist() == [1, 10, 1, 10]
    assert outcome.quality.tolist() == [1, 1, 1, 0]


def test_a_cascade_pays_for_the_weak_answer_too_and_gives_it_where_it_is_accepted() -> None:
    outcome = Hybrid((0.7,)).run(ROWS)
    assert outcome.strong_called.tolist() == [False, True, False, True]
    assert outcome.cost.tolist() == [1, 11, 1, 11]
    assert outcome.quality.tolist() == [1, 1, 1, 0]


def test_a_hybrid_asks_one_model_at_both_ends() -> None:
    # .2 is easy, .8 hard; .4 and .6 cascade, and only an acceptance of .7 passes.
    outcome = Hybrid((0.5,), easy_alpha=0.3, hard_alpha=0.8).run(ROWS)
    assert outcome.cost.tolist() == [1, 10, 1, 11]
    assert outcome.strong_called.tolist() == [False, True, False, True]


def test_a_hybrid_without_a_middle_is_a_route() -> None:
    hybrid, route = Hybrid((0.0,), easy_alpha=0.6, hard_alpha=0.6).run(ROWS), Route(0.6).run(ROWS)
    assert hybrid.cost.tolist() == route.cost.tolist()
    assert hybrid.quality.tolist() == route.quality.tolist()


def test_an_ensemble_pays_for_both_and_of_equal_answers_gives_the_cheaper_one() -> None:
    outcome = Ensemble().run(ROWS)
    assert outcome.cost.tolist() == [11] * 4
    assert outcome.quality.tolist() == [1, 1, 1, 0]
    better_strong = Scored(1.0 - ROWS.quality, ROWS.cost, ROWS.beaten, ROWS.acceptances, ROWS.preferences)
    assert Ensemble().run(better_strong).quality.tolist() == [0, 0, 0, 1]


def test_of_three_models_each_strategy_asks_whom_the_dispatcher_would() -> None:
    route = Route(0.5).run(THREE)  # the cheapest that is beaten less than .5; of the last the middle is not compared
    assert route.cost.tolist() == [1, 4, 10, 10]
    cascade = Hybrid((0.5, 0.6)).run(THREE)
    assert cascade.cost.tolist() == [1, 5, 15, 15]
    assert cascade.quality.tolist() == [1, 1, 1, 0]
    hybrid = Hybrid((0.5, 0.6), easy_alpha=0.65, hard_alpha=0.9).run(THREE)  # hard is the third, easy first and last
    assert hybrid.cost.tolist() == [1, 5, 10, 1]
    assert hybrid.strong_called.tolist() == [False, False, True, False]
    ensemble = Ensemble().run(THREE)  # all alike; the middle's .7; the strongest's .85; the cheapest's .9
    assert ensemble.cost.tolist() == [15] * 4
    assert ensemble.quality.tolist() == [1, 1, 1, 0]


def test_the_oracle_of_three_models_buys_the_most_per_usd_first() -> None:
    assert strategy_plans.oracle(THREE, 4.0).cost.tolist() == [1, 4, 10, 1]
    assert strategy_plans.oracle(THREE, 3.9).cost.tolist() == [1, 4, 1, 1]


@pytest.mark.parametrize(
    ("budget", "alpha", "threshold"),
    [
        (0.5, NEVER_STRONG, 0.0),  # not even all weak fits
        (1.0, NEVER_STRONG, 0.1),
        (3.25, 0.8, 0.1),  # a route to one strong call: 13 of 13; a cascade's would cost 14
        (3.5, 0.8, 0.3),
        (10.0, 0.2, 0.9),  # three escalations are 34 of 40; four are 44
        (11.0, 0.2, 1.0),
    ],
)
def test_thresholds_spend_what_the_budget_allows(budget: float, alpha: float, threshold: float) -> None:
    assert strategy_fits.fit_route(ROWS, budget).alpha == alpha
    cascade = strategy_fits.fit_cascade(ROWS, budget)
    assert cascade.thresholds == (threshold,)
    assert cascade.run(ROWS).cost.mean() <= max(budget, 1.0)


def test_the_oracle_spends_only_where_the_strong_answer_is_better() -> None:
    assert strategy_plans.oracle(ROWS, 10.0).strong_called.tolist() == [False, True, False, False]
    assert strategy_plans.oracle(ROWS, 1.0).strong_called.tolist() == [False] * 4


def _drawn(prompts: int, *, answer_tells: float, prompt_tells: float) -> Scored:
    """Prompts on which scores tell as much of what is right as is asked for."""
    generator = np.random.default_rng(0)
    weak, strong = generator.random(prompts) < 0.6, generator.random(prompts) < 0.9

    def score(truth: NDArray[np.bool_], tells: float) -> NDArray[np.float64]:
        known = generator.random(prompts) < tells
        return np.where(known, 0.5 * truth, 0.0) + 0.5 * generator.random(prompts)

    return _pair(
        quality=np.stack([weak, strong], axis=1).astype(np.float64),
        cost=np.tile([0.06, 1.0], (prompts, 1)),
        win_probability=score(strong & ~weak, prompt_tells),
        acceptance=score(weak, answer_tells),
        strong_preferred=score(strong & ~weak, answer_tells),
    )


def _evaluated(scored: Scored) -> strategies.StrategyResult:
    count = len(scored.cost)
    prompts = [f"prompt {place}" for place in range(count)]
    return strategies.evaluate("made up", prompts, scored, np.arange(count) % 5, usd=USD, router="none", draws=200)


def test_where_the_answer_tells_more_the_cascade_wins_and_the_hybrid_keeps_it() -> None:
    found = _evaluated(_drawn(1_000, answer_tells=0.8, prompt_tells=0.1))
    half = LEVELS.index(0.5)
    assert found.gains[CASCADE, ROUTE][half].low > 0
    hybrid, cascade = (found.curves[name][half].quality.value for name in (HYBRID, CASCADE))
    assert hybrid >= cascade


def test_where_both_tell_something_the_hybrid_is_nowhere_worse_than_either_and_somewhere_better_than_both() -> None:
    found = _evaluated(_drawn(1_000, answer_tells=0.5, prompt_tells=0.5))
    over = [[found.gains[HYBRID, other][level] for other in (ROUTE, CASCADE)] for level in range(len(LEVELS))]
    assert all(gain.value >= 0 for gains in over for gain in gains)
    assert any(all(gain.low > 0 for gain in gains) for gains in over)


def test_where_the_prompt_tells_all_the_hybrid_is_as_good_as_the_route() -> None:
    found = _evaluated(_drawn(1_000, answer_tells=0.0, prompt_tells=1.0))
    for level in range(len(LEVELS)):
        assert found.gains[HYBRID, ROUTE][level].value >= 0


def test_no_strategy_is_far_beyond_its_budget_and_with_all_the_money_none_beats_the_oracle() -> None:
    found = _evaluated(_drawn(1_000, answer_tells=0.5, prompt_tells=0.5))
    for name, points in found.curves.items():
        for level, point in zip(LEVELS, points, strict=True):
            assert point.cost.value <= level + 0.03, name
    # At smaller budgets folds overspend a little, each its own way, so that qualities there are not at one cost.
    everything = {name: points[-1].quality.value for name, points in found.curves.items()}
    assert all(everything[ORACLE] >= quality for quality in everything.values())
    assert found.fixed[ENSEMBLE].cost.value == pytest.approx(1.06)


def test_a_report_has_every_strategy_and_says_what_it_was_fitted_to() -> None:
    found = _evaluated(_drawn(300, answer_tells=0.8, prompt_tells=0.3))
    text = strategy_report.markdown([found], ["made-up.png"])
    assert "300 prompts with 2 answers" in text
    assert "$0.6 (weak), $10 (strong) per million" in text
    assert "every scorer (router 'none') and threshold fitted to the other 4 of 5 folds" in text
    assert "| budget | route | cascade | hybrid | oracle | cascade − route | hybrid − better |" in text
    assert text.count("% | ") >= len(LEVELS)
    assert "ensemble: quality" in text
    assert "![](made-up.png)" in text
    [document] = strategy_report.document([found])
    assert document["budgets"] == list(LEVELS)
    assert set(document["fixed"]) == {"all weak", "all strong", "ensemble"}
    assert document["gains"]["cascade - route"][4]["value"] == found.gains[CASCADE, ROUTE][4].value
    console = Console(width=160, file=io.StringIO())
    console.print(strategy_report.terminal([found]))


def test_the_picture_is_written(tmp_path: Path) -> None:
    found = _evaluated(_drawn(300, answer_tells=0.8, prompt_tells=0.3))
    assert strategy_plot.draw(found, tmp_path) == "made_up-strategies.png"
    assert (tmp_path / "made_up-strategies.png").read_bytes().startswith(b"\x89PNG")
