"""Platt's calibrator: a logistic curve from score to win probability, fitted to rows that training has not seen."""

import numpy as np
from numpy.typing import NDArray

from training.export import ExportError

Floats = NDArray[np.float64]


def fit(scores: Floats, labels: Floats, weights: Floats) -> tuple[float, float]:
    """Slope and offset of the curve, by Newton's method.

    Args:
        scores, labels: [rows]; a label is a win's share, ties one half.
        weights: how much a row counts.

    Raises:
        ExportError: the slope is not positive, so that higher scores do not win more often.
    """
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    curve = np.zeros(2)
    for _ in range(50):
        probability = sigmoid(design @ curve)
        gradient = design.T @ (weights * (labels - probability))
        hessian = (design * (weights * probability * (1.0 - probability))[:, None]).T @ design
        step = np.linalg.solve(hessian, gradient)
        curve += step
        if np.abs(step).max() < 1e-10:
            break
    if curve[0] <= 0.0:
        raise ExportError("held-out scores do not rise with the labels: there is nothing to route on")
    return float(curve[0]), float(curve[1])


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + e^−logit)."""
    probability: Floats = 1.0 / (1.0 + np.exp(-logit))
    return probability
