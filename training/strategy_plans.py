"""Strategies as a tenant could set them, and how their thresholds are fitted to a budget.

What a plan does with a prompt is decided by the dispatcher's own functions. Fitting needs no label where cost alone
decides (route and cascade spend what the budget allows); the hybrid's two α's are chosen by quality, and leave the
plain cascade only where the 95 % interval of what that gains is above zero: two thresholds more would otherwise fit the
noise of a few hundred prompts. One standard error in place of that interval was tried first, and lost to the cascade.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dispatcher_service import cascading, routing
from dispatcher_service.cascading import Zone
from dispatcher_service.routing import NEVER_STRONG, Tier
from training.strategy_rows import STRONG, WEAK, Scored

Floats = NDArray[np.float64]

EASY_SHARES = (0.1, 0.2, 0.3, 0.5)
HARD_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the prompts, by win probability, that a hybrid may call easy or hard."""

BEYOND_DOUBT = 1.96
"""Standard errors: half the width of a 95 % interval."""

NOTHING_ACCEPTED = 1.0
"""A threshold that next to no answer reaches: the largest that a policy takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of prompts, [prompts]: quality of the answer given, cost in USD of all calls, and whether the strong
    model was called."""

    quality: Floats
    cost: Floats
    strong_called: NDArray[np.bool_]


class Plan(Protocol):
    """What a tenant could set."""

    def run(self, rows: Scored) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Route:
    """One model per prompt, by its win probability."""

    alpha: float

    def run(self, rows: Scored) -> Outcome:
        tiers = [routing.decide(float(p), alpha=self.alpha).tier for p in rows.win_probability]
        strong = np.array([tier is Tier.STRONG for tier in tiers])
        return _outcome(rows, weak_called=~strong, strong_called=strong)


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Easy to the weak model, hard to the strong one; between, the weak answer is given if it is accepted.

    The plain cascade has no easy and no hard prompts.
    """

    threshold: float
    easy_alpha: float = 0.0
    hard_alpha: float = NEVER_STRONG

    def run(self, rows: Scored) -> Outcome:
        zones = [
            cascading.zone(float(p), easy_alpha=self.easy_alpha, hard_alpha=self.hard_alpha)
            for p in rows.win_probability
        ]
        accepted = np.array([cascading.accepts(float(a), threshold=self.threshold) for a in rows.acceptance])
        hard, middle = (np.array([zone is wanted for zone in zones]) for wanted in (Zone.HARD, Zone.MIDDLE))
        return _outcome(rows, weak_called=~hard, strong_called=hard | (middle & ~accepted))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Both models answer, and the ranker's better answer is given."""

    def run(self, rows: Scored) -> Outcome:
        outcome = _outcome(rows, weak_called=np.ones(len(rows.cost), bool), strong_called=np.ones(len(rows.cost), bool))
        better = np.where(rows.strong_preferred >= 0.5, STRONG, WEAK)
        return Outcome(rows.quality[np.arange(len(better)), better], outcome.cost, outcome.strong_called)


def fit_route(rows: Scored, budget: float) -> Route:
    """The lowest alpha whose mean cost is within the budget on these rows."""
    candidates = np.append(np.unique(rows.win_probability), NEVER_STRONG)
    strong = rows.win_probability[None, :] >= candidates[:, None]
    costs = np.where(strong, rows.cost[:, STRONG], rows.cost[:, WEAK]).mean(axis=1)
    within = np.flatnonzero(costs <= budget)
    return Route(float(candidates[within[0]]) if len(within) else NEVER_STRONG)


def fit_cascade(rows: Scored, budget: float) -> Hybrid:
    """The highest threshold whose mean cost is within the budget on these rows; 0 where none is."""
    return _with_threshold(rows, budget, 0.0, NEVER_STRONG) or Hybrid(0.0)


def fit_hybrid(rows: Scored, budget: float) -> Hybrid:
    """The cascade, or α's, those of plain routing among them, that are better on these rows beyond doubt."""
    cascade, alpha = fit_cascade(rows, budget), fit_route(rows, budget).alpha
    easy = [0.0, *(float(value) for value in np.quantile(rows.win_probability, EASY_SHARES))]
    hard = [NEVER_STRONG, *(float(np.quantile(rows.win_probability, 1.0 - share)) for share in HARD_SHARES)]
    candidates = [Hybrid(0.0, alpha, alpha)] + [
        plan
        for easy_alpha in easy
        for hard_alpha in hard
        if easy_alpha <= hard_alpha and (plan := _with_threshold(rows, budget, easy_alpha, hard_alpha))
    ]
    quality = cascade.run(rows).quality
    found, best = cascade, 0.0
    for plan in candidates:
        difference = plan.run(rows).quality - quality
        gain, error = float(difference.mean()), float(difference.std(ddof=1)) / np.sqrt(len(difference))
        if gain > BEYOND_DOUBT * error and gain > best:
            found, best = plan, gain
    return found


def oracle(rows: Scored, budget: float) -> Outcome:
    """What is possible: the strong model where it is better, best gain per USD first, while the budget lasts."""
    gain, extra = rows.quality[:, STRONG] - rows.quality[:, WEAK], rows.cost[:, STRONG] - rows.cost[:, WEAK]
    order = np.argsort(-gain / np.maximum(extra, 1e-12), kind="stable")
    spent = rows.cost[:, WEAK].sum() + np.cumsum(extra[order])
    chosen = order[(gain[order] > 0.0) & (spent <= budget * len(gain))]
    strong = np.zeros(len(gain), bool)
    strong[chosen] = True
    return _outcome(rows, weak_called=~strong, strong_called=strong)


def _with_threshold(rows: Scored, budget: float, easy_alpha: float, hard_alpha: float) -> Hybrid | None:
    """The highest threshold that these α's allow within the budget; nothing where even accepting all costs more."""
    hard = rows.win_probability >= hard_alpha
    middle = ~hard & (rows.win_probability >= easy_alpha)
    base = np.where(hard, rows.cost[:, STRONG], rows.cost[:, WEAK]).sum()
    if base > budget * len(hard):
        return None
    order = np.argsort(rows.acceptance, kind="stable")
    order = order[middle[order]]
    spent = base + np.cumsum(rows.cost[order, STRONG])
    refused = int(np.searchsorted(spent, budget * len(hard), side="right"))
    if refused == len(order):
        return Hybrid(NOTHING_ACCEPTED, easy_alpha, hard_alpha)
    # Ties are accepted together: the threshold is the first acceptance that the money does not reach.
    return Hybrid(float(rows.acceptance[order[refused]]), easy_alpha, hard_alpha)


def _outcome(rows: Scored, *, weak_called: NDArray[np.bool_], strong_called: NDArray[np.bool_]) -> Outcome:
    quality = np.where(strong_called, rows.quality[:, STRONG], rows.quality[:, WEAK])
    cost = weak_called * rows.cost[:, WEAK] + strong_called * rows.cost[:, STRONG]
    return Outcome(quality, cost, strong_called)
