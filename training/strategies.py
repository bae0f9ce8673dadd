"""Every strategy on the same prompts: quality of the answer given against the cost of all calls.

Nothing is measured on prompts that it was fitted to: in each fold router, scorer of answers and ranker are trained on
the other folds, written, loaded and served; thresholds are fitted to the other folds' prompts by scores that those had
as prompts held out.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scorer_service.judge import open_judge
from scorer_service.scorer import open_scorer
from training import fit_answer, fit_ranker, judging, strategy_plans, tables
from training import train as training
from training.evaluate import alike
from training.metrics import Interval, Resampling, interval
from training.strategy_plans import Ensemble, Outcome
from training.strategy_rows import STRONG, WEAK, AnsweredPrompts, Scored, score
from training.train import Progress, no_progress

Floats = NDArray[np.float64]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Budgets, as parts of what it costs to send every prompt to the strong model."""

ROUTE, CASCADE, HYBRID = "route", "cascade", "hybrid"
ENSEMBLE, ORACLE, ALL_WEAK, ALL_STRONG = "ensemble", "oracle", "all weak", "all strong"


@dataclass(frozen=True, slots=True)
class Point:
    """A strategy at a budget: quality, its cost as a part of all-strong's, and the share of prompts whose strong call
    was made. `outcome` is what became of each prompt."""

    quality: Interval
    cost: Interval
    strong_call_share: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """Every strategy on one benchmark.

    Attributes:
        name: of the benchmark.
        prompts: how many.
        folds: of the cross-validation.
        router: kind of the router that was trained in each fold.
        curves: strategy -> a point per level of `LEVELS`.
        fixed: strategies without a budget.
        gains: (first, second) -> per level, quality of the first less that of the second, by paired bootstrap.
    """

    name: str
    prompts: int
    folds: int
    router: str
    curves: Mapping[str, tuple[Point, ...]]
    fixed: Mapping[str, Point]
    gains: Mapping[tuple[str, str], tuple[Interval, ...]]


def cross_validated(
    found: AnsweredPrompts,
    source: Path,
    data: Path,
    *,
    router: str,
    folds: int,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Scored, NDArray[np.int64]]:
    """Scores of every prompt by artefacts that were trained without its fold, and the folds, [prompts].

    Args:
        found: what `source` holds.
        source: the file, whose rows the router is trained on.
        data: data folder, for what the router learns from beside them.
        router: kind, one that takes the setting `labels`.
        folds: how many.
        seed: of the folds and of every fit.
        progress: told which fold is trained.

    Raises:
        TrainingError: a fit fails.
        ArtifactError: what was written cannot be served.
    """
    count = len(found.prompts)
    by_row = found.rows.folds(folds, seed)
    fold_of, material = by_row[:count], judging.material(found.rows)
    scores = np.empty((3, count))
    frame = tables.read_table(source).frame
    for fold in range(folds):
        progress("folds", fold, folds)
        held = np.flatnonzero(fold_of == fold)
        seen = set(found.prompts) - {found.prompts[row] for row in held}
        with tempfile.TemporaryDirectory(prefix="pointsman-strategies-") as name:
            folder = Path(name)
            labels = folder / source.name
            lines = [line for line, prompt in zip(frame[tables.LINE], frame["prompt"], strict=True) if prompt in seen]
            tables.write_rows(source, lines, labels)
            training.train(router, data, folder / "router", [f"labels={labels}"], seed=seed)
            rest = material.chosen(np.flatnonzero(by_row != fold))
            fit_answer.fit_material(rest, folder / "answer", fit_answer.Config(seed=seed), metrics={})
            fit_ranker.fit_material(rest, folder / "ranker", fit_ranker.Config(seed=seed), metrics={})
            scores[:, held] = score(
                found,
                held,
                open_scorer(folder / "router", threads=1),
                open_judge(folder / "answer", threads=1),
                open_judge(folder / "ranker", threads=1),
            )
    return Scored(found.quality, found.cost, *scores), fold_of


def evaluate(
    name: str,
    prompts: Sequence[str],
    scored: Scored,
    folds: NDArray[np.int64],
    *,
    router: str,
    draws: int = 1000,
    seed: int = 0,
) -> StrategyResult:
    """Measure every strategy.

    Args:
        name: of the benchmark.
        prompts: [prompts]; those that begin alike are drawn together.
        scored: by artefacts that had not seen the prompt.
        folds: [prompts]; thresholds of a fold are fitted to the others.
        router: for the report.
        draws, seed: of the bootstrap.
    """
    resampling = Resampling(len(prompts), draws, seed, alike(prompts))
    full = scored.all_strong_cost
    fits: Mapping[str, Callable[[Scored, float], strategy_plans.Plan]] = {
        ROUTE: strategy_plans.fit_route,
        CASCADE: strategy_plans.fit_cascade,
        HYBRID: strategy_plans.fit_hybrid,
    }
    curves = {
        strategy: tuple(_point(_held_out(scored, folds, fit, level * full), full, resampling) for level in LEVELS)
        for strategy, fit in fits.items()
    }
    curves[ORACLE] = tuple(_point(strategy_plans.oracle(scored, level * full), full, resampling) for level in LEVELS)
    everything = np.ones(len(prompts), bool)
    fixed = {
        ALL_WEAK: Outcome(scored.quality[:, WEAK], scored.cost[:, WEAK], ~everything),
        ALL_STRONG: Outcome(scored.quality[:, STRONG], scored.cost[:, STRONG], everything),
        ENSEMBLE: Ensemble().run(scored),
    }
    compared = ((CASCADE, ROUTE), (HYBRID, ROUTE), (HYBRID, CASCADE))
    gains = {
        (first, second): tuple(
            _mean(one.outcome.quality - other.outcome.quality, resampling)
            for one, other in zip(curves[first], curves[second], strict=True)
        )
        for first, second in compared
    }
    points = {strategy: _point(outcome, full, resampling) for strategy, outcome in fixed.items()}
    return StrategyResult(name, len(prompts), int(folds.max()) + 1, router, curves, points, gains)


def _held_out(
    scored: Scored, folds: NDArray[np.int64], fit: Callable[[Scored, float], strategy_plans.Plan], budget: float
) -> Outcome:
    """What became of every prompt under a plan that was fitted to the other folds."""
    quality, cost = np.empty(len(folds)), np.empty(len(folds))
    strong = np.zeros(len(folds), bool)
    for fold in range(int(folds.max()) + 1):
        held = np.flatnonzero(folds == fold)
        outcome = fit(scored.chosen(np.flatnonzero(folds != fold)), budget).run(scored.chosen(held))
        quality[held], cost[held], strong[held] = outcome.quality, outcome.cost, outcome.strong_called
    return Outcome(quality, cost, strong)


def _point(outcome: Outcome, all_strong_cost: float, resampling: Resampling) -> Point:
    return Point(
        _mean(outcome.quality, resampling),
        _mean(outcome.cost / all_strong_cost, resampling),
        float(outcome.strong_called.mean()),
        outcome,
    )


def _mean(values: Floats, resampling: Resampling) -> Interval:
    drawn = resampling.statistics(lambda counts: counts @ values / counts.sum(axis=1))
    return interval(float(values.mean()), drawn)
