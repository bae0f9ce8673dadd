"""Fits a Gaussian kernel machine by ridge regression on landmarks (Nyström), without a second data set.

What the machine would say of a row had it not seen the row's group comes in closed form, so that sharpness and penalty
are chosen, and the calibrator is fitted, on scores that no row had a hand in itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.routers.difficulty_kernel import gaussian

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Groups = NDArray[np.int64]

SHARPNESS = (0.3, 0.8)
"""Candidates. A squared distance is measured in the mean one between two rows; the kernel falls with this rate."""

PENALTIES = (0.3, 1.0, 3.0, 10.0)
"""Candidates, as a ridge penalty on a kernel with ones on its diagonal. Around the best one the error is flat."""

_SMALLEST = 1e-6
"""Directions among the landmarks that are shorter, as a part of the longest, are noise."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A machine and what it says of its own training rows.

    Attributes:
        rate: features are multiplied by it; then the kernel is exp(−|x − z|²).
        landmarks: features times `rate`, [landmarks, width].
        weights: [landmarks].
        bias: the score far from all landmarks.
        held_out: the score of each row by a fit without the row's group, [rows].
        sharpness, penalty: as chosen.
    """

    rate: float
    landmarks: Floats
    weights: Doubles
    bias: float
    held_out: Doubles
    sharpness: float
    penalty: float


def fit(
    features: Floats,
    outcomes: Doubles,
    groups: Groups,
    *,
    landmarks: int,
    seed: int,
) -> Fitted:
    """Choose sharpness and penalty by the squared error on held-out groups, and fit.

    Args:
        features: [rows, width].
        outcomes: what is predicted, [rows].
        groups: a number per row; rows of one group are held out together.
        landmarks: at most so many rows are compared with.
        seed: of their choice.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:landmarks])
    distance = _mean_squared_distance(features)
    bias = float(outcomes.mean())
    best: tuple[float, Fitted] | None = None
    for sharpness in SHARPNESS:
        rate = float(np.sqrt(sharpness / distance))
        places = features[chosen] * np.float32(rate)
        design, back = _design(gaussian(features * np.float32(rate), places).astype(np.float64), places)
        for penalty, weights, held_out in _ridge(design, outcomes - bias, groups):
            error = float(np.mean((outcomes - bias - held_out) ** 2))
            if best is None or error < best[0]:
                found = Fitted(rate, places, back @ weights, bias, bias + held_out, sharpness, penalty)
                best = error, found
    assert best is not None
    return best[1]


def _design(kernel: Doubles, places: Floats) -> tuple[Doubles, Doubles]:
    """The kernel's columns made orthonormal in the landmarks' space, and the way back to weights of landmarks."""
    values, vectors = np.linalg.eigh(gaussian(places, places).astype(np.float64))
    kept = values > values.max() * _SMALLEST
    back = vectors[:, kept] / np.sqrt(values[kept])
    return kernel @ back, back


def _ridge(design: Doubles, outcomes: Doubles, groups: Groups) -> Sequence[tuple[float, Doubles, Doubles]]:
    """For each penalty: weights of the design's columns, and the held-out score of every row."""
    values, vectors = np.linalg.eigh(design.T @ design)
    values = np.maximum(values, 0.0)
    turned = design @ vectors
    aims = turned.T @ outcomes
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    found = []
    for penalty in PENALTIES:
        shrunk = 1.0 / (values + penalty)
        fitted = turned @ (shrunk * aims)
        held_out = np.empty_like(outcomes)
        for rows in members:
            # Without the group B its residuals grow by (I − H_BB)⁻¹, with H the hat matrix.
            part = turned[rows]
            residual = np.linalg.solve(np.eye(len(rows)) - (part * shrunk) @ part.T, outcomes[rows] - fitted[rows])
            held_out[rows] = outcomes[rows] - residual
        found.append((penalty, vectors @ (shrunk * aims), held_out))
    return found


def _mean_squared_distance(rows: Floats) -> float:
    """Between two rows of many: twice the sum of the columns' variances."""
    return float(2.0 * rows.astype(np.float64).var(axis=0).sum())
