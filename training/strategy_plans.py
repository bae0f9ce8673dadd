"""Strategies as a tenant could set them: what each does with prompts whose answers are known.

What a plan does with a prompt is decided by the dispatcher's own functions. Columns are the models of a ladder, the
cheapest first. See `strategy_fits` for how thresholds are fitted to a budget.
"""

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dispatcher_service import cascading, ensembling, routing
from dispatcher_service.cascading import Zone
from dispatcher_service.routing import NEVER_STRONG, Candidates
from scorer_service import ranking
from training.strategy_rows import Scored

Floats = NDArray[np.float64]
Rungs = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of prompts, [prompts]: quality of the answer given, cost in USD of all calls, and whether the
    strongest model was called."""

    quality: Floats
    cost: Floats
    strong_called: NDArray[np.bool_]


class Plan(Protocol):
    """What a tenant could set."""

    def run(self, rows: Scored) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Route:
    """One model per prompt, by how probably the strongest model's answer is better."""

    alpha: float

    def run(self, rows: Scored) -> Outcome:
        rungs = [routing.decide_among(candidates(beaten), alpha=self.alpha).rung for beaten in rows.beaten]
        return alone(rows, np.array(rungs, np.intp))


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Easy to the cheapest model, hard to the strongest; between, the first answer that its stage accepts is given.

    The plain cascade has no easy and no hard prompts.

    Attributes:
        thresholds: of every model but the last.
        easy_alpha, hard_alpha: see `cascading.zone`.
    """

    thresholds: tuple[float, ...]
    easy_alpha: float = 0.0
    hard_alpha: float = NEVER_STRONG

    def run(self, rows: Scored) -> Outcome:
        ends = [self._ends(float(p), own) for p, own in zip(rows.win_probability, rows.acceptances, strict=True)]
        first, last = np.array(ends, np.intp).T
        given = alone(rows, last)
        climbed = np.cumsum(rows.cost, axis=1)[np.arange(len(last)), last]
        return Outcome(given.quality, np.where(first == 0, climbed, given.cost), given.strong_called)

    def _ends(self, win_probability: float, acceptances: Floats) -> tuple[int, int]:
        """The first model that is asked, and the one whose answer is given; those between are asked too."""
        zone = cascading.zone(win_probability, easy_alpha=self.easy_alpha, hard_alpha=self.hard_alpha)
        top = len(self.thresholds)
        if zone is not Zone.MIDDLE:
            return (top, top) if zone is Zone.HARD else (0, 0)
        stages = zip(acceptances, self.thresholds, strict=True)
        accepting = (rung for rung, (a, t) in enumerate(stages) if cascading.accepts(float(a), threshold=t))
        return 0, next(accepting, top)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Every model answers, and the answer that wins most comparisons is given."""

    def run(self, rows: Scored) -> Outcome:
        best = [ensembling.order(ranking.win_rates(rows.top + 1, own))[0] for own in rows.preferences.tolist()]
        given = alone(rows, np.array(best, np.intp))
        return Outcome(given.quality, rows.cost.sum(axis=1), np.ones(len(best), bool))


def candidates(beaten: Floats) -> Candidates:
    """What a decision is made among, of one prompt's `Scored.beaten`."""
    known = [rung for rung, probability in enumerate(beaten) if not np.isnan(probability)]
    return Candidates(tuple(known), tuple(float(beaten[rung]) for rung in known), top=len(beaten) - 1)


def alone(rows: Scored, rungs: Rungs) -> Outcome:
    """One model per prompt, [prompts]."""
    places = np.arange(len(rungs))
    return Outcome(rows.quality[places, rungs], rows.cost[places, rungs], rungs == rows.top)


def oracle(rows: Scored, budget: float) -> Outcome:
    """What is possible: of each prompt a dearer model where its answer is better, the best gain per USD first, while
    the budget lasts."""
    steps = sorted(
        (-(quality / extra), prompt, rung, extra)
        for prompt, own in enumerate(zip(rows.quality, rows.cost, strict=True))
        for rung, quality, extra in _steps(*own)
    )
    left = budget * len(rows.cost) - float(rows.cost[:, 0].sum())
    rungs = np.zeros(len(rows.cost), np.intp)
    for _, prompt, rung, extra in steps:
        if extra > left:
            break
        left -= extra
        rungs[prompt] = rung
    return alone(rows, rungs)


def _steps(quality: Floats, cost: Floats) -> list[tuple[int, float, float]]:
    """Of one prompt the models worth their money: rung, gain and extra cost over the one before, less and less gain per
    USD (the upper hull)."""
    found = [(0, 0.0, 0.0)]  # rung, quality and cost over the cheapest model's
    for rung in range(1, len(cost)):
        gain, extra = float(quality[rung] - quality[0]), max(float(cost[rung] - cost[0]), 1e-12)
        while len(found) > 1 and _rate(found[-2], (rung, gain, extra)) >= _rate(found[-2], found[-1]):
            found.pop()
        if gain > found[-1][1]:
            found.append((rung, gain, extra))
    return [(after[0], after[1] - before[1], after[2] - before[2]) for before, after in itertools.pairwise(found)]


def _rate(before: tuple[int, float, float], after: tuple[int, float, float]) -> float:
    return (after[1] - before[1]) / max(after[2] - before[2], 1e-12)
