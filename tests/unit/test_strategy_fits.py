"""Thresholds of many stages against brute force, and what makes a hybrid leave the strategy that it begins as."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.routing import NEVER_STRONG
from training import clear_gains, strategy_fits
from training.strategy_plans import Hybrid, Route
from training.strategy_rows import Scored


def _drawn(models: int, prompts: int, seed: int) -> Scored:
    """Prompts that the strongest model always answers rightly, so that it never hurts to ask it."""
    generator = np.random.default_rng(seed)
    quality = (generator.random((prompts, models)) < np.linspace(0.3, 0.8, models)).astype(np.float64)
    quality[:, -1] = 1.0
    beaten = np.round(generator.random((prompts, models)), 1)
    beaten[:, -1] = 0.5
    acceptances = np.round(0.5 * quality[:, :-1] + 0.5 * generator.random((prompts, models - 1)), 2)
    cost = np.linspace(1.0, 10.0, models) * generator.uniform(0.5, 1.5, (prompts, models))
    return Scored(quality, cost, beaten, acceptances, np.empty((prompts, 0)))


def _best_of_all(rows: Scored, budget: float) -> float:
    """The best mean quality of any cascade within the budget."""
    values = [[0.0, *np.unique(own), 1.0] for own in rows.acceptances.T]
    outcomes = [Hybrid(tuple(map(float, thresholds))).run(rows) for thresholds in itertools.product(*values)]
    return max(float(each.quality.mean()) for each in outcomes if each.cost.mean() <= budget)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("models", "prompts"), [(2, 20), (3, 16), (4, 7)])
@pytest.mark.parametrize("part", [0.4, 0.7])
def test_no_thresholds_within_the_budget_are_better(models: int, prompts: int, seed: int, part: float) -> None:
    rows = _drawn(models, prompts, seed)
    budget = part * float(rows.cost.sum(axis=1).mean())
    outcome = strategy_fits.fit_cascade(rows, budget).run(rows)
    assert outcome.cost.mean() <= budget
    assert outcome.quality.mean() == _best_of_all(rows, budget)


def test_a_long_cascade_spends_no_more_than_its_budget_and_is_better_than_one_threshold_for_all() -> None:
    rows = _drawn(6, 300, 0)
    for part in (0.1, 0.3, 0.6):
        budget = part * float(rows.cost.sum(axis=1).mean())
        outcome = strategy_fits.fit_cascade(rows, budget).run(rows)
        alike = [Hybrid((threshold,) * 5).run(rows) for threshold in np.unique(rows.acceptances).tolist()]
        within = [float(each.quality.mean()) for each in alike if each.cost.mean() <= budget]
        assert outcome.cost.mean() <= budget
        assert outcome.quality.mean() >= max(within)


def test_where_no_cascade_is_within_the_budget_every_answer_is_accepted() -> None:
    assert strategy_fits.fit_cascade(_drawn(4, 20, 0), 0.1) == Hybrid((0.0, 0.0, 0.0))


@given(st.integers(0, 1_000), st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]), min_size=3, max_size=5))
def test_qualities_of_all_prompts_at_once_are_those_of_the_dispatchers_rule(seed: int, drawn: list[float]) -> None:
    *thresholds, one, other = drawn
    rows = _drawn(len(thresholds) + 1, 12, seed)
    plan = Hybrid(tuple(thresholds), min(one, other), max(one, other))
    assert strategy_fits.qualities(rows, plan).tolist() == plan.run(rows).quality.tolist()


@given(st.integers(0, 1_000), st.integers(2, 4), st.floats(0.0, 12.0))
def test_the_alpha_of_a_route_is_the_lowest_within_the_budget(seed: int, models: int, budget: float) -> None:
    rows = _drawn(models, 12, seed)
    rows.beaten[seed % 12, 0 if models == 2 else 1] = 0.3 if models == 2 else np.nan
    known = rows.beaten[:, :-1]
    alphas = [*np.unique(known[~np.isnan(known)]).tolist(), NEVER_STRONG]
    within = [alpha for alpha in alphas if Route(alpha).run(rows).cost.sum() <= budget * 12]
    assert strategy_fits.fit_route(rows, budget).alpha == min(within, default=NEVER_STRONG)


def test_a_gain_on_every_prompt_is_clear_and_one_on_a_handful_is_not() -> None:
    gains = np.zeros((500, 3))
    gains[:, 0] = 1.0
    gains[:4, 1] = 1.0
    assert clear_gains.clear(gains, confidence=0.95).tolist() == [True, False, False]


def test_the_best_of_many_that_gain_nothing_is_seldom_clear() -> None:
    generator = np.random.default_rng(0)
    found = [
        clear_gains.clear(generator.choice([-1.0, 0.0, 1.0], (200, 30)), confidence=0.95, seed=seed).any()
        for seed in range(100)
    ]
    assert sum(found) <= 11  # 5 are expected; more than 11 come up 1 time in 200


def test_a_hybrid_in_which_the_prompt_tells_nothing_is_the_cascade() -> None:
    rows = _drawn(3, 400, 0)
    for part in (0.2, 0.5):
        budget = part * rows.all_strong_cost
        assert strategy_fits.fit_hybrid(rows, budget) == strategy_fits.fit_cascade(rows, budget)


def test_a_hybrid_in_which_the_prompt_tells_all_and_the_answer_nothing_begins_as_a_route() -> None:
    rows = _drawn(3, 400, 0)
    generator = np.random.default_rng(1)
    rows.beaten[:, 0] = 0.5 * (rows.quality[:, -1] - rows.quality[:, 0]) + 0.5 * generator.random(400)
    rows.acceptances[:] = generator.random(rows.acceptances.shape)
    budget = 0.5 * rows.all_strong_cost
    hybrid, ends, cascade = (
        fit(rows, budget).run(rows).quality.mean()
        for fit in (strategy_fits.fit_hybrid, strategy_fits.fit_ends, strategy_fits.fit_cascade)
    )
    assert hybrid >= ends > cascade
