"""The calibration of a router of one pair: `sigmoid(slope * ln(odds) + offset)`, with a positive slope."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training import pair_curves
from training.export import ExportError
from training.onnx_graph import GraphBuilder

Floats = NDArray[np.float64]

_FLOOR = 1e-6
"""Of a side's probability: its logarithm stays finite."""


@dataclass(frozen=True, slots=True)
class LogitCurve:
    """The fitted curve."""

    slope: float
    offset: float

    @classmethod
    def fit(cls, log_odds: Floats, labels: Floats) -> "LogitCurve":
        """Least log loss on rows that training has not seen; a label is 1, one half for a tie, or 0.

        Raises:
            ExportError: higher odds do not win more often.
        """
        slope, offset = pair_curves.platt(log_odds, labels)
        if slope <= 0.0:
            raise ExportError("held-out scores do not rise with the labels: there is nothing to route on")
        return cls(slope, offset)

    def __call__(self, log_odds: Floats) -> Floats:
        """ln(p / (1 − p)) -> calibrated probabilities, same shape."""
        bound = np.log(1.0 / _FLOOR)
        z = self.slope * np.clip(log_odds, -bound, bound) + self.offset
        probability: Floats = 1.0 / (1.0 + np.exp(-z))
        return probability

    def add_odds(self, graph: GraphBuilder, sides: str) -> str:
        """The same as graph nodes, from both sides' probabilities [batch, 2] to [batch]."""
        logs = graph.op("Log", graph.op("Max", sides, graph.floats(1e-30)))
        odds = graph.op("MatMul", logs, graph.floats([1.0, -1.0]))
        bound = np.log(1.0 / _FLOOR)
        odds = graph.op("Clip", odds, graph.floats(-bound), graph.floats(bound))
        z = graph.op("Add", graph.op("Mul", odds, graph.floats(self.slope)), graph.floats(self.offset))
        return graph.op("Sigmoid", z)
