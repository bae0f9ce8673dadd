"""`answer`: how likely an answer is acceptable, from its marks, its words and its prompt's form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from scorer_service.artifact import Task
from scorer_service.judge import OUTPUT, SIDES
from scorer_service.preprocess import EncodedAnswers
from training.onnx_graph import GraphBuilder
from training.routers.judging import PREPROCESS, AnswerFeatures, Floats, Strength

KIND = "answer"

[_SIDE] = SIDES[Task.SCORE_ANSWER]


@dataclass(frozen=True, slots=True)
class AnswerRouter:
    """A trained scorer of answers; a positive slope of the calibrator keeps the order of strengths."""

    tokenizer_json: str
    features: AnswerFeatures
    strength: Strength
    slope: float
    offset: float

    kind = KIND
    preprocess = PREPROCESS

    def probability(self, rows: Sequence[EncodedAnswers]) -> Floats:
        """P(acceptable) of rows of one answer each, [rows]."""
        strength = self.strength(self.features(rows))
        return (1.0 / (1.0 + np.exp(-(self.slope * strength + self.offset)))).astype(np.float32)

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        strength = self.strength.add(graph, self.features.add(graph, self.features.add_prompt(graph), _SIDE))
        scaled = graph.op("Mul", strength, graph.constant(self.slope, np.float64, "calibrator_slope"))
        logit = graph.op("Add", scaled, graph.constant(self.offset, np.float64, "calibrator_offset"))
        probability = graph.cast(graph.op("Sigmoid", logit), TensorProto.FLOAT)
        return graph.build({OUTPUT[Task.SCORE_ANSWER]: (probability, ["batch"])}, KIND)
