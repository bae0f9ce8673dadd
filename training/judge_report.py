"""How well answers are judged, with 95 % intervals by bootstrap over prompts: for manifests."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.answer_rows import AnswerRows
from training.metrics import Floats, Resampling, interval
from training.reliability import brier

_DRAWS = 1000


def auc(scores: Floats, labels: Floats, counts: NDArray[np.int64] | None = None) -> float:
    """How often an acceptable answer scores above one that is not, a tie counting one half; NaN without one of each.

    Args:
        scores: [rows].
        labels: 1 or 0, [rows].
        counts: how often a row counts, [rows]; `None` is once.
    """
    weights = np.ones(len(labels)) if counts is None else counts.astype(np.float64)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(np.diff(ranked) > 0.0, True)) + 1
    starts = np.concatenate([[0], ends[:-1]])
    good = np.add.reduceat((weights * labels)[order], starts)
    bad = np.add.reduceat((weights * (1.0 - labels))[order], starts)
    below = np.cumsum(bad) - bad
    total = good.sum() * bad.sum()
    return float((good * (below + 0.5 * bad)).sum() / total) if total > 0.0 else np.nan


def of_answers(rows: AnswerRows, labels: Floats, contestants: Mapping[str, Floats], *, seed: int) -> Mapping[str, Any]:
    """AUC of each contestant, over all answers and over each model's; the first one's are probabilities.

    Args:
        rows: that were judged.
        labels: 1 for acceptable, [rows].
        contestants: name -> held-out scores, higher is better, [rows].
        seed: of the draws.
    """
    first = next(iter(contestants.values()))
    parts = {"all": np.arange(len(labels))}
    for model in sorted(set(rows.models)):
        parts[model] = np.flatnonzero(np.array(rows.models) == model)
    measured: dict[str, Any] = {}
    for part, chosen in parts.items():
        if part and len(set(labels[chosen])) > 1:
            measured[part] = {
                "answers": len(chosen),
                "acceptable": round(float(labels[chosen].mean()), 4),
                "auc": {
                    name: _with_interval(rows.groups()[chosen], _auc_of(scores[chosen], labels[chosen]), seed)
                    for name, scores in contestants.items()
                },
                "brier_skill": round(1.0 - brier(first[chosen], labels[chosen]) / float(np.var(labels[chosen])), 4),
            }
    return measured


def of_pairs(
    rows: AnswerRows, first: NDArray[np.intp], outcomes: Floats, contestants: Mapping[str, Floats], *, seed: int
) -> Mapping[str, Any]:
    """Of the pairs that differ in quality, the share that each contestant orders rightly; an undecided one is half.

    Args:
        rows: that the pairs are of.
        first: the row of each pair's first answer, [pairs].
        outcomes: 1 where it is better, 0 where it is worse, [pairs].
        contestants: name -> held-out probability that it is better, [pairs].
        seed: of the draws.
    """
    differ = np.flatnonzero(outcomes != 0.5)
    groups = rows.groups()[first[differ]]
    probabilities = next(iter(contestants.values()))
    right = {
        name: 0.5 + 0.5 * np.sign(scores[differ] - 0.5) * np.sign(outcomes[differ] - 0.5)
        for name, scores in contestants.items()
    }
    return {
        "pairs": len(outcomes),
        "pairs_that_differ": len(differ),
        "accuracy": {name: _with_interval(groups, _mean_of(values), seed) for name, values in right.items()},
        "brier": round(brier(probabilities, outcomes), 5),
        "brier_of_one_half": round(brier(np.full(len(outcomes), 0.5), outcomes), 5),
    }


Statistic = Callable[[NDArray[np.int64]], float]


def _auc_of(scores: Floats, labels: Floats) -> Statistic:
    return lambda counts: auc(scores, labels, counts)


def _mean_of(values: Floats) -> Statistic:
    return lambda counts: float((counts * values).sum() / counts.sum()) if counts.sum() else np.nan


def _with_interval(groups: NDArray[np.int64], statistic: Statistic, seed: int) -> list[float]:
    """Value, low and high."""
    _, dense = np.unique(groups, return_inverse=True)
    resampling = Resampling(len(groups), _DRAWS, seed, dense.astype(np.int64))
    drawn = resampling.statistics(lambda counts: np.array([statistic(row) for row in counts]))
    found = interval(statistic(np.ones(len(groups), np.int64)), drawn)
    return [round(float(value), 4) for value in (found.value, found.low, found.high)]
