"""Every strategy on the same prompts: quality of the answer given against the cost of all calls.

Nothing is measured on prompts that it was fitted to: in each fold router, scorer of answers and ranker are trained on
the other folds, written, loaded and served; thresholds are fitted to the other folds' prompts by scores that those had
as prompts held out.
"""

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scorer_service.judge import open_judge
from scorer_service.scorer import open_scorer
from training import fit_answer, fit_ranker, judging, strategy_fits, strategy_plans, strategy_rows
from training import train as training
from training.evaluate import alike
from training.metrics import Interval, Resampling, interval
from training.strategy_fits import LEVELS
from training.strategy_plans import Ensemble, Outcome
from training.strategy_rows import AnsweredPrompts, Scored
from training.train import Progress, no_progress

Floats = NDArray[np.float64]

ROUTE, CASCADE, HYBRID = "route", "cascade", "hybrid"
ENSEMBLE, ORACLE, ALL_WEAK, ALL_STRONG = "ensemble", "oracle", "all weak", "all strong"

COMPARE_ALL = ("mf", "sw")
"""Kinds of router that compare every model of a ladder; others compare its two ends."""


@dataclass(frozen=True, slots=True)
class Point:
    """A strategy at a budget: quality, its cost as a part of all-strong's, and the share of prompts whose strongest
    model was called. `outcome` is what became of each prompt."""

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
        usd: what each model costs per million tokens, cheapest first.
        folds: of the cross-validation.
        router: kind of the router that was trained in each fold.
        curves: strategy -> a point per level of `LEVELS`.
        fixed: strategies without a budget.
        gains: (first, second) -> per level, quality of the first less that of the second, by paired bootstrap.
    """

    name: str
    prompts: int
    usd: Mapping[str, float]
    folds: int
    router: str
    curves: Mapping[str, tuple[Point, ...]]
    fixed: Mapping[str, Point]
    gains: Mapping[tuple[str, str], tuple[Interval, ...]]


def cross_validated(
    found: AnsweredPrompts,
    name: str,
    data: Path,
    *,
    router: str,
    folds: int,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Scored, NDArray[np.int64]]:
    """Scores of every prompt by artefacts that were trained without its fold, and the folds, [prompts].

    Args:
        found: answered prompts.
        name: of their file, without its suffix.
        data: data folder, for what a router of a pair learns from beside them.
        router: kind: one that takes the setting `labels` and knows the two ends, or one of `COMPARE_ALL`.
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
    pairs = list(itertools.combinations(found.models, 2))
    beaten, acceptances, preferences = (
        np.empty((count, columns)) for columns in (len(found.models), len(found.models) - 1, len(pairs))
    )
    for fold in range(folds):
        progress("folds", fold, folds)
        held = np.flatnonzero(fold_of == fold)
        with tempfile.TemporaryDirectory(prefix="pointsman-strategies-") as made:
            folder = Path(made)
            labels = folder / f"{name}.parquet"
            rows = np.flatnonzero(fold_of != fold)
            _train_router(router, found, rows, data=data, labels=labels, out=folder / "router", seed=seed)
            rest = material.chosen(np.flatnonzero(by_row != fold))
            fit_answer.fit_material(rest, folder / "answer", fit_answer.Config(seed=seed), metrics={})
            fit_ranker.fit_material(rest, folder / "ranker", fit_ranker.Config(seed=seed), metrics={})
            prompts = [found.prompts[row] for row in held]
            answers = [[texts[row] for row in held] for texts in found.answers]
            beaten[held] = strategy_rows.compared(open_scorer(folder / "router", threads=1), found.models, prompts)
            acceptances[held] = strategy_rows.accepted(open_judge(folder / "answer", threads=1), prompts, answers)
            preferences[held] = strategy_rows.preferred(open_judge(folder / "ranker", threads=1), prompts, answers)
    return Scored(found.quality, found.cost, beaten, acceptances, preferences), fold_of


def _train_router(
    kind: str, found: AnsweredPrompts, rows: NDArray[np.intp], *, data: Path, labels: Path, out: Path, seed: int
) -> None:
    """Write the labels of these prompts, and a router that is trained on them.

    One that compares all models learns from nothing else; one of a pair learns from the data folder too.
    """
    prompts, quality = [found.prompts[row] for row in rows], found.quality[rows]
    if kind in COMPARE_ALL:
        columns = {f"quality/{model}": quality[:, place] for place, model in enumerate(found.models)}
        pl.DataFrame({"prompt": prompts, **columns}).write_parquet(labels)
        ends = [f"strong_model={found.models[-1]}", f"weak_model={found.models[0]}"]
        training.train(kind, labels, out, ends, seed=seed)
    else:
        both = {"strong_quality": quality[:, -1], "weak_quality": quality[:, 0]}
        pl.DataFrame({"prompt": prompts, **both}).write_parquet(labels)
        training.train(kind, data, out, [f"labels={labels}"], seed=seed)


def evaluate(
    name: str,
    prompts: Sequence[str],
    scored: Scored,
    folds: NDArray[np.int64],
    *,
    usd: Mapping[str, float],
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
        usd: what each model costs per million tokens, cheapest first: for the report, as is
        router: the kind.
        draws, seed: of the bootstrap.
    """
    resampling = Resampling(len(prompts), draws, seed, alike(prompts))
    full = scored.all_strong_cost
    fits: Mapping[str, Callable[[Scored, float], strategy_plans.Plan]] = {
        ROUTE: strategy_fits.fit_route,
        CASCADE: strategy_fits.fit_cascade,
        HYBRID: strategy_fits.fit_hybrid,
    }
    curves = {
        strategy: tuple(_point(_held_out(scored, folds, fit, level * full), full, resampling) for level in LEVELS)
        for strategy, fit in fits.items()
    }
    curves[ORACLE] = tuple(_point(strategy_plans.oracle(scored, level * full), full, resampling) for level in LEVELS)
    everywhere = np.ones(len(prompts), np.intp)
    fixed = {
        ALL_WEAK: strategy_plans.alone(scored, 0 * everywhere),
        ALL_STRONG: strategy_plans.alone(scored, scored.top * everywhere),
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
    return StrategyResult(name, len(prompts), usd, int(folds.max()) + 1, router, curves, points, gains)


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
