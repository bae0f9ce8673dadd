"""`ranker`: which of two answers to a prompt is better, from how strong each looks and whether they agree.

Two answers that come to the same conclusion are mostly equally good, so that their difference in strength has a slope
of its own. By its form P(a, b) = 1 − P(b, a); serving averages both orders for rankers of any form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from scorer_service.artifact import Task
from scorer_service.judge import OUTPUT, SIDES
from scorer_service.preprocess import EncodedAnswers
from training.onnx_graph import GraphBuilder
from training.routers.judging import PREPROCESS, AnswerFeatures, Doubles, Floats, Strength

KIND = "ranker"


@dataclass(frozen=True, slots=True)
class RankerRouter:
    """A trained ranker.

    Attributes:
        tokenizer_json: of the artefact.
        features: of each answer.
        strength: of each answer.
        slope: log-odds per difference in strength, of answers that come to different conclusions; positive.
        slope_of_agreeing: the same of answers that come to one conclusion; positive.
    """

    tokenizer_json: str
    features: AnswerFeatures
    strength: Strength
    slope: float
    slope_of_agreeing: float

    kind = KIND
    preprocess = PREPROCESS

    def probability(self, rows: Sequence[EncodedAnswers]) -> Floats:
        """P(the first is better) of rows of two answers, [rows]."""
        first, second = (self.strength(self.features(rows, side)) for side in (0, 1))
        slopes = np.where(agreeing(rows), self.slope_of_agreeing, self.slope)
        return (1.0 / (1.0 + np.exp(-slopes * (first - second)))).astype(np.float32)

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        prompt = self.features.add_prompt(graph)
        sides = SIDES[Task.RANK_ANSWERS]
        strengths = [self.strength.add(graph, self.features.add(graph, prompt, side)) for side in sides]
        conclusions = [graph.input(f"{side}_conclusion", ["batch"]) for side in sides]
        slope, of_agreeing = (
            graph.constant(value, np.float64, name)
            for value, name in ((self.slope, "slope"), (self.slope_of_agreeing, "slope_of_agreeing"))
        )
        slopes = graph.op("Where", graph.op("Equal", *conclusions), of_agreeing, slope)
        logit = graph.op("Mul", graph.op("Sub", *strengths), slopes)
        probability = graph.cast(graph.op("Sigmoid", logit), TensorProto.FLOAT)
        return graph.build({OUTPUT[Task.RANK_ANSWERS]: (probability, ["batch"])}, KIND)


def agreeing(rows: Sequence[EncodedAnswers]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which rows' two answers come to one conclusion, [rows]."""
    return np.array([row.answers[0].marks.conclusion == row.answers[1].marks.conclusion for row in rows])


def slope_of(differences: Doubles, outcomes: Doubles, *, fewest: int = 8, largest: float = 50.0) -> float:
    """Log-odds per difference in strength that make `outcomes` (1 first better, 0 second, one half a tie) likeliest.

    Args:
        differences: [rows].
        outcomes: [rows].
        fewest: rows; fewer say nothing, and the slope is the smallest.
        largest: bounds it from above; 0.01 does from below, so that ranks survive.
    """
    slope = 0.0
    if len(outcomes) >= fewest:
        for _ in range(50):
            probability = 1.0 / (1.0 + np.exp(-slope * differences))
            gradient = float(differences @ (outcomes - probability))
            curvature = float(differences**2 @ (probability * (1.0 - probability))) + 1e-9
            step = gradient / curvature
            slope = float(np.clip(slope + step, -largest, largest))
            if abs(step) < 1e-9:
                break
    return float(np.clip(slope, 0.01, largest))
