"""Labels of one pair for the routers that learn a pair: the file's own, and what models like the two did elsewhere.

A label is a distribution over five grades of the weak model's answer, as RouteLLM's judge gives them: 1 to 3 where the
strong model's answer is better, by less and less; 4 where both are equally good; 5 where the weak model's is better.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training import tiers
from training.many_models import Material
from training.matrices import AnswerMatrix

Floats = NDArray[np.float64]

GRADES = 5
_NEAR = 1
"""Models up to so many tiers from the pair's stand for it in sets that do not know the pair."""


@dataclass(frozen=True, slots=True)
class PairLabels:
    """One row per prompt that has a label.

    Attributes:
        prompts: [prompts].
        grades: [prompts, 5], each row a distribution.
        outcomes: what is to be predicted: 1 for a win of the strong model, one half for a tie. [prompts].
        fold: [prompts]; prompts that begin alike share one.
        traffic: [prompts], true for rows of the labelled files.
        weights: how often a prompt is drawn in training, of sum 1. [prompts].
    """

    prompts: tuple[str, ...]
    grades: Floats
    outcomes: Floats
    fold: NDArray[np.int64]
    traffic: NDArray[np.bool_]
    weights: Floats


def of(material: Material, *, folds: int, seed: int, labelled_share: float) -> PairLabels:
    """Collect the labels.

    Args:
        material: what is known of all models.
        folds: number of folds.
        seed: of the folds.
        labelled_share: of all training draws, the part that goes to the labelled files; the sets of `train/` share
            the rest, a set of n prompts having √n parts.
    """
    tier = dict(zip(material.models, tiers.tiers(material.ratings), strict=True))
    prompts: list[str] = []
    parts: list[tuple[Floats, NDArray[np.int64], bool]] = []
    for index, (matrix, fold) in enumerate(zip(material.matrices, material.folds(folds, seed), strict=True)):
        grades = _grades(matrix, *(_stand_ins(matrix, tier, model) for model in material.pair))
        known = np.flatnonzero(~np.isnan(grades[:, 0]))
        if len(known):
            prompts += [matrix.prompts[row] for row in known]
            parts.append((grades[known], fold[known], index >= len(material.matrices) - material.labelled))
    grades = np.concatenate([part for part, _, _ in parts])
    traffic = np.concatenate([np.full(len(part), own) for part, _, own in parts])
    return PairLabels(
        prompts=tuple(prompts),
        grades=grades,
        outcomes=grades[:, :3].sum(axis=1) + 0.5 * grades[:, 3],
        fold=np.concatenate([fold for _, fold, _ in parts]),
        traffic=traffic,
        weights=_weights([(len(part), own) for part, _, own in parts], labelled_share),
    )


def _stand_ins(matrix: AnswerMatrix, tier: dict[str, np.int64], model: str) -> list[str]:
    """The model itself, or else the set's models that are about as strong."""
    if model in matrix.models:
        return [model]
    return [name for name in matrix.models if abs(int(tier[name]) - int(tier[model])) <= _NEAR]


def _grades(matrix: AnswerMatrix, strong: list[str], weak: list[str]) -> Floats:
    """Mean distribution over all pairs of a strong and a weak model; NaN where no pair has both answers."""
    shares = np.zeros((len(matrix.prompts), GRADES))
    scale = float(np.nanmax(matrix.quality) - np.nanmin(matrix.quality)) or 1.0
    for one in strong:
        for other in weak:
            if one == other:
                continue
            outcome, gap = matrix.outcomes(one, other), matrix.gap(one, other)
            # A whole scale of difference is grade 1, a third of it or less grade 3.
            better = 4 - np.clip(np.ceil(3.0 * np.nan_to_num(gap) / scale - 1e-6), 1, 3)
            grade = np.where(outcome == 1.0, better, np.where(outcome == 0.5, 4, 5)).astype(np.int64)
            rows = np.flatnonzero(~np.isnan(outcome))
            shares[rows, grade[rows] - 1] += 1.0
    total = shares.sum(axis=1, keepdims=True)
    grades: Floats = np.divide(shares, total, out=np.full_like(shares, np.nan), where=total > 0)
    return grades


def _weights(sets: list[tuple[int, bool]], labelled_share: float) -> Floats:
    root = {own: sum(np.sqrt(count) for count, each in sets if each == own) for own in (False, True)}
    share = {True: labelled_share if root[False] else 1.0, False: 1.0 - labelled_share if root[True] else 1.0}
    return np.concatenate([np.full(count, share[own] * np.sqrt(count) / root[own] / count) for count, own in sets])
