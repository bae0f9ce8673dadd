"""What kinds `answer` and `ranker` share: features of an answer beside its prompt, and how strong they look.

Four blocks: the marks that preprocessing found in the answer, which say most; its surface features; its word vectors;
and the prompt's surface features. A Gaussian kernel machine on them gives the answer's strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scorer_service.marks import NAMES
from scorer_service.preprocess import EncodedAnswers, PreprocessSpec
from training import minilm
from training.kernel_fit import Fitted
from training.onnx_graph import GraphBuilder
from training.routers.blocks import CLIP, StandardSurface
from training.routers.difficulty_kernel import add_gaussian, gaussian
from training.routers.static import StaticFeatures
from training.token_rows import TokenRows
from training.word_vectors import WordVectors

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

PREPROCESS = PreprocessSpec(
    max_tokens=1024,
    truncation_side="right",
    pad_id=minilm.PAD,
    add_special_tokens=True,
    version=3,
    answer_tokens=2048,
)

MARKS_SHARE = 4.0
"""Mean square of the block of marks; that of the other blocks is 1 each. Between 1 and 8 it made no difference."""


@dataclass(frozen=True, slots=True)
class AnswerFeatures:
    """Prompt, answer and marks -> one row of numbers per answer.

    Attributes:
        prompt: surface features of the prompt.
        answer: surface features and word vectors of the answer.
        mark_mean, mark_scale: standardise the marks, [marks].
    """

    prompt: StandardSurface
    answer: StaticFeatures
    mark_mean: Floats
    mark_scale: Floats

    @classmethod
    def fit(
        cls, attributes: NDArray[np.int8], vectors: WordVectors, rows: Sequence[EncodedAnswers]
    ) -> "AnswerFeatures":
        """Take means and scales from these answers, one per row."""
        prompts, answers, marks = _parts(rows, 0)
        spread = marks.std(axis=0)
        scale = np.sqrt(MARKS_SHARE / len(NAMES)) / np.where(spread > 1e-6, spread, np.inf)
        return cls(
            StandardSurface.fit(attributes, prompts),
            StaticFeatures.fit(attributes, vectors, answers),
            marks.mean(axis=0),
            scale.astype(np.float32),
        )

    def __call__(self, rows: Sequence[EncodedAnswers], side: int = 0) -> Floats:
        """Of the answers at this place in their rows: [rows, width]."""
        prompts, answers, marks = _parts(rows, side)
        return np.concatenate(
            [self._standard(marks), self.answer(answers), self.prompt(prompts)], axis=1, dtype=np.float32
        )

    def add(self, graph: GraphBuilder, prompt: str, side: str) -> str:
        """The same as graph nodes, with the inputs of this side: float32 [batch, width].

        Args:
            graph: that is built.
            prompt: what `add_prompt` gave.
            side: the answer's name in the graph's inputs.
        """
        ids = graph.input(f"{side}_ids", ["batch", f"{side}_tokens"])
        mask = graph.input(f"{side}_mask", ["batch", f"{side}_tokens"])
        marks = graph.input(f"{side}_marks", ["batch", len(NAMES)], TensorProto.FLOAT)
        centred = graph.op("Sub", marks, graph.floats(self.mark_mean, "mark_mean"))
        limit = CLIP * np.sqrt(MARKS_SHARE / len(NAMES))
        standard = graph.op("Mul", centred, graph.floats(self.mark_scale, "mark_scale"))
        standard = graph.op("Clip", standard, graph.floats(-limit), graph.floats(limit))
        return graph.op("Concat", standard, self.answer.add(graph, ids, mask), prompt, axis=1)

    def add_prompt(self, graph: GraphBuilder) -> str:
        """The prompt's inputs and its features as graph nodes, once for all sides: float32 [batch, features]."""
        ids = graph.input("input_ids", ["batch", "tokens"])
        mask = graph.input("attention_mask", ["batch", "tokens"])
        return self.prompt.add(graph, ids, graph.cast(graph.op("Unsqueeze", mask, graph.ints([2]))))

    def _standard(self, marks: Floats) -> Floats:
        limit = np.float32(CLIP * np.sqrt(MARKS_SHARE / len(NAMES)))
        standard: Floats = np.clip((marks - self.mark_mean) * self.mark_scale, -limit, limit)
        return standard


@dataclass(frozen=True, slots=True)
class Strength:
    """Features -> how good an answer looks: the kernel with landmarks, times weights.

    Attributes:
        rate: features are multiplied by it.
        landmarks: [landmarks, width].
        weights: [landmarks].
        bias: the strength far from all landmarks.
    """

    rate: float
    landmarks: Floats
    weights: Doubles
    bias: float

    @classmethod
    def of(cls, fitted: Fitted) -> "Strength":
        """The machine of a fit."""
        return cls(fitted.rate, fitted.landmarks, fitted.weights, fitted.bias)

    def __call__(self, features: Floats) -> Doubles:
        """[rows]."""
        kernel = gaussian(features * np.float32(self.rate), self.landmarks).astype(np.float64)
        strength: Doubles = kernel @ self.weights + self.bias
        return strength

    def add(self, graph: GraphBuilder, features: str) -> str:
        """The same as graph nodes: float64 [batch]."""
        scaled = graph.op("Mul", features, graph.floats(self.rate, "strength_rate"))
        kernel = add_gaussian(graph, scaled, self.landmarks, "strength_landmarks")
        # Many landmarks nearly cancel out: in float32 a score would show how its batch was summed.
        weights = graph.constant(self.weights[:, None], np.float64, "strength_weights")
        product = graph.op("MatMul", graph.cast(kernel, TensorProto.DOUBLE), weights)
        column = graph.op("Add", product, graph.constant(self.bias, np.float64, "strength_bias"))
        return graph.op("Squeeze", column, graph.ints([1]))


def _parts(rows: Sequence[EncodedAnswers], side: int) -> tuple[TokenRows, TokenRows, Floats]:
    """Prompts, the answers of one side, and their marks."""
    answers = [row.answers[side] for row in rows]
    return (
        TokenRows.of([row.prompt.input_ids for row in rows]),
        TokenRows.of([answer.encoded.input_ids for answer in answers]),
        np.array([answer.marks.values for answer in answers], np.float32),
    )
