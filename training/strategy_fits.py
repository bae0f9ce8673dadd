"""How the thresholds of a strategy are fitted to a budget, on prompts whose answers are known.

Where one threshold is free, cost alone sets it, and no label is needed: plain routing, a cascade of two models, and the
last threshold of any cascade spend what the budget allows. Of a cascade of more models the earlier thresholds are those
of the best quality under the cost (FrugalGPT): ascent over quantiles of the stages' acceptances, two stages at a time,
every setting with its exact cost and quality on the rows. So of three and of four models every combination is tried; of
more, the ascent begins where all stages accept the same share. One stage at a time was tried first, and stopped short
of the best thresholds of four models.

The hybrid begins as one of the two simpler strategies that it contains, route or cascade: the one for which more speaks
at this budget and those near by, since one budget's difference is mostly noise. Other α's are taken only where their
gain is clear, with all that were tried and all budgets of a report in one family (`clear_gains`).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dispatcher_service.routing import NEVER_STRONG
from training import clear_gains
from training.strategy_plans import Hybrid, Route
from training.strategy_rows import Scored

Floats = NDArray[np.float64]

LEVELS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The budgets of a report, as parts of what it costs to send every prompt to the strongest model."""

NOTHING_ACCEPTED: Final = 1.0
"""A threshold that next to no answer reaches: the largest that a policy takes."""

_EASY_SHARES: Final = (0.1, 0.2, 0.3, 0.5)
_HARD_SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the prompts, by win probability, that a hybrid may call easy or hard."""

_CONFIDENCE: Final = 1.0 - 0.05 / len(LEVELS)
"""That no α's are taken for nothing at any budget of a report: Bonferroni over the budgets."""

_NEAR: Final = {step / 10: 4 - abs(step) for step in range(-3, 4)}
"""Steps to budgets near by, as parts like `LEVELS`, and how much each weighs."""

_GRID: Final = 24
"""Values tried of a threshold, at most."""


def fit_route(rows: Scored, budget: float) -> Route:
    """The lowest alpha whose mean cost is within the budget on these rows."""
    known = rows.beaten[:, :-1]
    alphas = np.append(np.unique(known[~np.isnan(known)]), NEVER_STRONG)
    within = np.flatnonzero(_costs(rows, alphas) <= budget * len(rows.cost))
    return Route(float(alphas[within[0]]) if len(within) else NEVER_STRONG)


def _costs(rows: Scored, alphas: Floats) -> Floats:
    """Of all prompts at each of these ascending alphas.

    A model is taken at the alphas above its probability, up to the lowest one of those before it: each adds its cost
    from one place on and takes it off again at another.
    """
    changes = np.zeros(len(alphas) + 1)
    lowest = np.full(len(rows.cost), np.inf)
    for rung in range(rows.top + 1):
        beaten = rows.beaten[:, rung] if rung < rows.top else np.full(len(lowest), -np.inf)
        taken = beaten < lowest  # NaN is not
        for sign, ends in ((1.0, beaten[taken]), (-1.0, lowest[taken])):
            np.add.at(changes, np.searchsorted(alphas, ends, side="right"), sign * rows.cost[taken, rung])
        lowest = np.where(taken, beaten, lowest)
    return np.cumsum(changes)[:-1]


def fit_cascade(rows: Scored, budget: float, start: Hybrid | None = None) -> Hybrid:
    """A cascade whose mean cost is within the budget on these rows; one that accepts all where none is.

    Args:
        start: a cascade of a budget near by, to begin from; `None` looks everywhere.
    """
    return _between(rows, budget, 0.0, NEVER_STRONG, start) or Hybrid((0.0,) * rows.top)


def fit_hybrid(rows: Scored, budget: float) -> Hybrid:
    """The better of cascade and plain routing between the two ends, or α's that are clearly better still."""
    cascade, ends = fit_cascade(rows, budget), fit_ends(rows, budget)
    begun = cascade if _cascades(rows, budget, cascade) else ends
    easy = [0.0, *(float(value) for value in np.quantile(rows.win_probability, _EASY_SHARES))]
    hard = [NEVER_STRONG, *(float(np.quantile(rows.win_probability, 1.0 - share)) for share in _HARD_SHARES)]
    candidates = [cascade, ends] + [
        plan
        for easy_alpha in easy
        for hard_alpha in hard
        if easy_alpha <= hard_alpha and (plan := _between(rows, budget, easy_alpha, hard_alpha, cascade))
    ]
    before = qualities(rows, begun)
    gains = np.stack([qualities(rows, plan) - before for plan in candidates], axis=1)
    clear = clear_gains.clear(gains, confidence=_CONFIDENCE)
    if not clear.any():
        return begun
    return candidates[int(np.argmax(np.where(clear, gains.mean(axis=0), -np.inf)))]


def fit_ends(rows: Scored, budget: float) -> Hybrid:
    """Plain routing between the cheapest and the strongest model, as a hybrid in which nothing cascades."""
    ends = [0, rows.top]
    pair = Scored(rows.quality[:, ends], rows.cost[:, ends], rows.beaten[:, ends], rows.acceptances, rows.preferences)
    alpha = fit_route(pair, budget).alpha
    return Hybrid((0.0,) * rows.top, alpha, alpha)


def qualities(rows: Scored, plan: Hybrid) -> Floats:
    """Of `plan.run`, all prompts at once: [prompts]."""
    accepted = rows.acceptances >= np.array(plan.thresholds)
    climbed = np.where(accepted.any(axis=1), accepted.argmax(axis=1), rows.top)
    easy = np.where(rows.win_probability < plan.easy_alpha, 0, climbed)
    given = np.where(rows.win_probability >= plan.hard_alpha, rows.top, easy)
    found: Floats = rows.quality[np.arange(len(given)), given]
    return found


def _cascades(rows: Scored, budget: float, cascade: Hybrid) -> bool:
    """Whether cascades, such as this one of the budget, are at least as good as plain routing: by their differences, in
    standard errors, at this budget and at budgets near by, of which nearer ones weigh more."""
    evidence = 0.0
    for step, weight in _NEAR.items():
        near = budget + step * rows.all_strong_cost
        gain = qualities(rows, fit_cascade(rows, near, cascade)) - qualities(rows, fit_ends(rows, near))
        # Where there is nothing to choose, with no money or with more than all-strong costs, both do the same.
        if np.any(gain != 0.0):
            evidence += weight * float(gain.sum() / np.sqrt((gain**2).sum()))
    return evidence >= 0.0


def _between(
    rows: Scored, budget: float, easy_alpha: float, hard_alpha: float, start: Hybrid | None = None
) -> Hybrid | None:
    """The thresholds between these α's; nothing where even accepting all costs more than the budget."""
    search = _Search(rows, budget, easy_alpha, hard_alpha)
    thresholds = search.ascend(None if start is None else start.thresholds)
    return None if thresholds is None else Hybrid(thresholds, easy_alpha, hard_alpha)


_Found = tuple[float, tuple[float, ...]]
"""Quality in sum, and thresholds."""


class _Search:
    """Looks for the thresholds of the prompts that cascade, whose share of a budget is what the others leave."""

    def __init__(self, rows: Scored, budget: float, easy_alpha: float, hard_alpha: float) -> None:
        hard = rows.win_probability >= hard_alpha
        easy = ~hard & (rows.win_probability < easy_alpha)
        middle = ~hard & ~easy
        self._money = budget * len(rows.cost) - rows.cost[hard, -1].sum() - rows.cost[easy, 0].sum()
        self._quality = rows.quality[middle]
        self._paid = np.cumsum(rows.cost[middle], axis=1)
        self._early = rows.acceptances[middle, :-1]
        self._late = rows.acceptances[middle, -1]
        self._by_late = np.argsort(self._late, kind="stable")

    def ascend(self, start: tuple[float, ...] | None = None) -> tuple[float, ...] | None:
        """The best thresholds that are found; `None` if none are within the budget.

        Args:
            start: thresholds to begin from, changed one at a time; `None` looks everywhere.
        """
        grids = [_grid(own) for own in self._early.T]
        together = 1 if start is not None else min(2, len(grids))
        best: _Found | None = None
        for early in [start[:-1]] if start is not None else _alike(grids):
            best = self._better(best, early)
        improved = bool(grids)
        while improved:
            before = best
            for stages in itertools.combinations(range(len(grids)), together):
                for values in itertools.product(*(grids[stage] for stage in stages)):
                    early = (0.0,) * len(grids) if best is None else best[1][:-1]
                    changed = dict(zip(stages, values, strict=True))
                    best = self._better(best, tuple(changed.get(stage, value) for stage, value in enumerate(early)))
            improved = best is not before and len(grids) > together
        return None if best is None else best[1]

    def _better(self, best: _Found | None, early: tuple[float, ...]) -> _Found | None:
        """The better of what is known and these thresholds of all stages but the last; of equals what is known."""
        found = self._spent(early)
        return found if best is None or (found is not None and found[0] > best[0]) else best

    def _spent(self, early: tuple[float, ...]) -> _Found | None:
        """Quality, and thresholds whose last one is the highest within the money; `None` if there is none."""
        accepted = self._early >= np.array(early)
        stopped: NDArray[np.bool_] = np.asarray(accepted.any(axis=1))
        stop = np.where(stopped, accepted.argmax(axis=1) if early else 0, len(early))
        places = np.arange(len(stop))
        money = self._money - self._paid[places, stop].sum()
        if money < 0.0:
            return None
        order = self._by_late[~stopped[self._by_late]]
        spent = np.cumsum(self._paid[order, -1] - self._paid[order, -2])
        refused = int(np.searchsorted(spent, money, side="right"))
        # Ties are accepted together: the threshold is the first acceptance that the money does not reach.
        threshold = NOTHING_ACCEPTED if refused == len(order) else float(self._late[order[refused]])
        given = np.where(~stopped & (self._late < threshold), len(early) + 1, stop)
        return float(self._quality[places, given].sum()), (*early, threshold)


def _grid(acceptances: Floats) -> list[float]:
    """Values to try of a threshold: accept all, nothing, and between them what separates equal shares, ascending."""
    values = np.unique(acceptances)
    if len(values) > _GRID - 2:
        values = np.unique(np.quantile(acceptances, np.linspace(0.0, 1.0, _GRID - 2), method="inverted_cdf"))
    return sorted({0.0, *values.tolist(), NOTHING_ACCEPTED})


def _alike(grids: Sequence[Sequence[float]]) -> Iterator[tuple[float, ...]]:
    """Thresholds of stages that all accept about the same share."""
    for share in np.linspace(0.0, 1.0, _GRID):
        yield tuple(grid[round(share * (len(grid) - 1))] for grid in grids)
