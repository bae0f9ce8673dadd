"""Difficulty heads: what the answer matrices of other models tell about how hard a prompt is.

A head is a ridge regression from a prompt's features to one property of its row in a set's model × question matrix:
mean correctness of the set's strong models, of its weak ones, their difference, the same within a task, and the
matrix's principal components. Side by side, the heads' predictions are a prompt's difficulty profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.matrices import AnswerMatrix

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_COMPONENTS = 3
_PART = 3
"""A set's strong models are its best third, its weak ones the worst third."""

_FEWEST_LABELS = 0.5
"""A model without labels for half of a set's prompts is left out of the set."""

_PENALTIES: Doubles = 10.0 ** np.arange(-3.0, 3.1, 0.5)


@dataclass(frozen=True, slots=True)
class Heads:
    """Linear heads: `features @ weights + bias`; [width, heads] and [heads]."""

    weights: Floats
    bias: Floats


def fit(matrices: Sequence[AnswerMatrix], features: Sequence[Floats]) -> Heads:
    """All heads of all sets.

    Args:
        matrices: the sets.
        features: per set [prompts, width].
    """
    fitted = [
        ridge(inputs.astype(np.float64), targets(matrix)) for matrix, inputs in zip(matrices, features, strict=True)
    ]
    return Heads(
        np.concatenate([weights for weights, _ in fitted], axis=1).astype(np.float32),
        np.concatenate([bias for _, bias in fitted]).astype(np.float32),
    )


def targets(matrix: AnswerMatrix) -> Doubles:
    """What the heads of a set predict, [prompts, heads]; a missing answer counts as the prompt's and model's mean."""
    known = np.isnan(matrix.quality).mean(axis=0) < _FEWEST_LABELS
    quality = matrix.quality[:, known]
    level = np.nanmean(quality, axis=0)
    present = ~np.isnan(quality)
    # Against the models' own means, so that a prompt which only strong models answered does not look easy.
    ease = np.where(present, quality - level, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    filled = np.where(present, quality, level + ease[:, None])
    ranked = np.argsort(-level, kind="stable")
    third = max(1, len(ranked) // _PART)
    strong, weak = filled[:, ranked[:third]].mean(axis=1), filled[:, ranked[-third:]].mean(axis=1)
    directions, sizes, _ = np.linalg.svd(filled - filled.mean(axis=0), full_matrices=False)
    count = min(_COMPONENTS, len(level) - 1)
    components = directions[:, :count] * sizes[:count]
    # A component's sign is free: let it rise with ease, on every machine.
    components *= np.where(components.T @ (ease - ease.mean()) < 0.0, -1.0, 1.0)
    columns = [strong, weak, strong - weak]
    if matrix.tasks:
        columns += [within(strong - weak, matrix.tasks), within((strong + weak) / 2.0, matrix.tasks)]
    return np.column_stack([*columns, components])


def within(values: Doubles, tasks: Sequence[str]) -> Doubles:
    """Values less their task's mean: what is left is difficulty inside a task, not which task it is."""
    _, task = np.unique(np.array(tasks), return_inverse=True)
    means = np.bincount(task, values) / np.bincount(task)
    centred: Doubles = values - means[task]
    return centred


def ridge(inputs: Doubles, outputs: Doubles, penalties: Doubles = _PENALTIES) -> tuple[Doubles, Doubles]:
    """Ridge regression, the penalty of each output chosen by generalised cross-validation (Golub, Heath, Wahba 1979).

    Args:
        inputs: [rows, width].
        outputs: [rows, outputs].
        penalties: candidates, of the squared norm of an output's weights.

    Returns:
        Weights [width, outputs] and bias [outputs].
    """
    mean, level = inputs.mean(axis=0), outputs.mean(axis=0)
    centred, aims = inputs - mean, outputs - level
    rows, width = centred.shape
    wide = width > rows
    gram = centred @ centred.T if wide else centred.T @ centred
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    # Coordinates of the outputs along the rows' principal directions, where `values` are the squared lengths.
    spread = values > values.max() * 1e-12
    projected = (
        vectors.T @ aims
        if wide
        else np.divide(
            vectors.T @ (centred.T @ aims),
            np.sqrt(values)[:, None],
            out=np.zeros((width, aims.shape[1])),
            where=spread[:, None],
        )
    )
    total = (aims**2).sum(axis=0)
    scores = []
    for penalty in penalties:
        kept = values / (values + penalty)
        residual = total - (projected**2 * (1.0 - (1.0 - kept) ** 2)[:, None]).sum(axis=0)
        scores.append(residual / (rows - 1.0 - kept.sum()) ** 2)
    best = penalties[np.argmin(scores, axis=0)]
    shrunk = projected / (values[:, None] + best)
    weights = centred.T @ (vectors @ shrunk) if wide else vectors @ (shrunk * np.sqrt(values)[:, None])
    return weights, level - mean @ weights
