"""Calibration per pair of models: a raw log-odds becomes P(the strong answer is better), with a tie counting one half.

Each pair has a curve `sigmoid(slope * z + offset)` with a positive slope, so that ranks survive. The curve of a pair
the other way round follows: the win probabilities of the two sides add up to one. A pair with too few labels takes the
curve that fits all pairs, and is not listed as calibrated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.matrices import AnswerMatrix
from training.onnx_graph import GraphBuilder

Floats = NDArray[np.float64]

MIN_LABELS = 200
"""Fewer labels than this do not make a curve of a pair's own: its offset would be off by more than .03."""

_MIN_SLOPE = 0.02
"""A flatter curve says nothing; such a pair keeps the common curve."""


@dataclass(frozen=True, slots=True)
class PairCurves:
    """One curve per ordered pair.

    Attributes:
        slopes: [models, models], positive, symmetric.
        offsets: [models, models], antisymmetric.
        calibrated: [models, models], true where the curve is the pair's own.
    """

    slopes: Floats
    offsets: Floats
    calibrated: NDArray[np.bool_]

    def __call__(self, log_odds: NDArray[np.floating[Any]], strong: int, weak: int) -> Floats:
        """Raw log-odds of `strong` over `weak` -> win probabilities, same shape."""
        z = self.slopes[strong, weak] * np.asarray(log_odds, np.float64) + self.offsets[strong, weak]
        probability: Floats = 1.0 / (1.0 + np.exp(-z))
        return probability

    def pairs(self, models: Sequence[str]) -> frozenset[tuple[str, str]]:
        """The calibrated pairs by name, for the manifest."""
        return frozenset((models[strong], models[weak]) for strong, weak in np.argwhere(self.calibrated))

    def add(self, graph: GraphBuilder, log_odds: str, strong: str, weak: str) -> str:
        """The same as graph nodes.

        Args:
            log_odds: float32 [batch] or [batch, k].
            strong, weak: int64 indices of models that broadcast to the shape of `log_odds`.
        """
        pair = graph.op("Add", graph.op("Mul", strong, graph.ints(len(self.slopes))), weak)
        slope = graph.op("Gather", graph.floats(self.slopes.ravel(), "slopes"), pair)
        offset = graph.op("Gather", graph.floats(self.offsets.ravel(), "offsets"), pair)
        return graph.op("Sigmoid", graph.op("Add", graph.op("Mul", log_odds, slope), offset))


def add_outputs(graph: GraphBuilder, strengths: str, curves: PairCurves) -> dict[str, tuple[str, Sequence[str | int]]]:
    """Declare the inputs that name a pair, and make the outputs of a graph of many models.

    Args:
        strengths: float32 [batch, models]; the difference of two is the raw log-odds of that pair.

    Returns:
        The outputs as `GraphBuilder.build` takes them. A model's win probability over the strong model is the
        calibrated one of that pair; the strong model itself has one half.
    """
    count = len(curves.slopes)
    strong, weak = (graph.input(name, ["batch"]) for name in ("strong_model", "weak_model"))

    def column(side: str) -> tuple[str, str]:
        """The model of each row and its strength, [batch, 1] both."""
        index = graph.op("Unsqueeze", side, graph.ints([1]))
        return index, graph.op("GatherElements", strengths, index, axis=1)

    (strong_index, of_strong), (_, of_weak) = column(strong), column(weak)
    ahead = graph.op("Squeeze", graph.op("Sub", of_strong, of_weak), graph.ints([1]))
    over_strong = curves.add(graph, graph.op("Sub", strengths, of_strong), graph.ints(np.arange(count)), strong_index)
    return {
        "win_probability": (curves.add(graph, ahead, strong, weak), ["batch"]),
        "wins_over_strong": (over_strong, ["batch", count]),
    }


def fit(
    strengths: Sequence[Floats], matrices: Sequence[AnswerMatrix], models: Sequence[str], only: tuple[str, str]
) -> PairCurves:
    """Fit a curve to every pair that has labels.

    Args:
        strengths: per matrix [prompts, models], what a router that has not seen these prompts says; the columns are
            those of `models`.
        matrices: with the labels.
        models: every model of the router.
        only: the pair that is served by default. Where matrices hold this pair and nothing else, they are its traffic:
            its curve is fitted to them alone.
    """
    place = {model: index for index, model in enumerate(models)}
    traffic = [index for index, matrix in enumerate(matrices) if set(matrix.models) == set(only)]
    gathered: dict[tuple[int, int], list[tuple[Floats, Floats]]] = {}
    for index, (strength, matrix) in enumerate(zip(strengths, matrices, strict=True)):
        for first, strong in enumerate(matrix.models):
            for weak in matrix.models[first + 1 :]:
                if traffic and {strong, weak} == set(only) and index not in traffic:
                    continue
                # One order for both spellings of a pair, so that several matrices add up.
                a, b = sorted((strong, weak), key=place.__getitem__)
                labels = matrix.outcomes(a, b)
                known = ~np.isnan(labels)
                z = strength[known, place[a]] - strength[known, place[b]]
                gathered.setdefault((place[a], place[b]), []).append((z, labels[known]))
    joined = {
        pair: (np.concatenate([z for z, _ in parts]), np.concatenate([y for _, y in parts]))
        for pair, parts in gathered.items()
    }
    return _curves(joined, len(models), tuple(place[model] for model in only))


def _curves(labelled: dict[tuple[int, int], tuple[Floats, Floats]], count: int, only: tuple[int, ...]) -> PairCurves:
    everything = [np.concatenate(parts) for parts in zip(*labelled.values(), strict=True)]
    # Both ways round, so that the common curve has no offset.
    common, _ = platt(
        np.concatenate([everything[0], -everything[0]]), np.concatenate([everything[1], 1 - everything[1]])
    )
    slopes = np.full((count, count), max(common, _MIN_SLOPE))
    offsets = np.zeros((count, count))
    calibrated = np.zeros((count, count), bool)
    for (a, b), (z, labels) in labelled.items():
        if len(z) < MIN_LABELS and {a, b} != set(only):
            continue
        slope, offset = platt(z, labels)
        if slope < _MIN_SLOPE:
            continue
        slopes[a, b] = slopes[b, a] = slope
        offsets[a, b], offsets[b, a] = offset, -offset
        calibrated[a, b] = calibrated[b, a] = True
    return PairCurves(slopes, offsets, calibrated)


def platt(z: Floats, labels: Floats) -> tuple[float, float]:
    """Slope and offset of least log loss by Newton's method, held in place by a faint pull to zero."""
    centre, scale = float(z.mean()), max(float(z.std()), 1e-9)
    design = np.stack([(z - centre) / scale, np.ones_like(z)], axis=1)
    curve = np.zeros(2)
    for _ in range(50):
        probability = 1.0 / (1.0 + np.exp(-design @ curve))
        gradient = design.T @ (labels - probability) - 1e-3 * curve
        hessian = (design * (probability * (1.0 - probability))[:, None]).T @ design + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        curve += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    slope = float(curve[0]) / scale
    return slope, float(curve[1]) - slope * centre
