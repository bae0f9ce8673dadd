"""`static`: word vectors and surface features under a linear head. The whole router is a few gathers and one product.

It reads every token of a prompt up to a window that is far beyond any encoder's, and is the shipped default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from scorer_service.preprocess import PreprocessSpec
from training import minilm, surface, word_vectors
from training.onnx_graph import GraphBuilder
from training.token_rows import TokenRows
from training.word_vectors import WordVectors

KIND = "static"

PREPROCESS = PreprocessSpec(max_tokens=8192, truncation_side="right", pad_id=minilm.PAD, add_special_tokens=True)

_CLIP = 4.0
_BLOCK = 2_000
"""Prompts whose token attributes are held in memory at once."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StaticFeatures:
    """Token ids -> one row of numbers per prompt.

    Three blocks, each of unit mean square over the training prompts: standardised surface features clipped at ±4,
    and the two word-vector means, centred and of unit length.

    Attributes:
        attributes: int8 [vocabulary, attributes], see `surface`.
        vectors: the word vectors.
        surface_mean, surface_scale: [surface features].
        pool_mean: [vectors.width].
    """

    attributes: NDArray[np.int8]
    vectors: WordVectors
    surface_mean: Floats
    surface_scale: Floats
    pool_mean: Floats

    @classmethod
    def fit(cls, attributes: NDArray[np.int8], vectors: WordVectors, rows: TokenRows) -> "StaticFeatures":
        """Take means and scales from these prompts."""
        look, pools = _raw(attributes, vectors, rows)
        scale = look.std(axis=0) * np.sqrt(look.shape[1])
        # A feature that never varies says nothing: leave it at zero.
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-6)
        return cls(attributes, vectors, look.mean(axis=0), inverse, pools.mean(axis=0))

    @property
    def width(self) -> int:
        """Columns of the result."""
        return len(self.surface_mean) + len(self.pool_mean)

    def __call__(self, rows: TokenRows) -> Floats:
        """[prompts, width]."""
        look, pools = _raw(self.attributes, self.vectors, rows)
        limit = _CLIP / np.sqrt(look.shape[1])
        standard = np.clip((look - self.surface_mean) * self.surface_scale, -limit, limit)
        halves = np.split(pools - self.pool_mean, 2, axis=1)
        return np.concatenate([standard, *(_unit(half) for half in halves)], axis=1, dtype=np.float32)

    def add(self, graph: GraphBuilder, input_ids: str, attention_mask: str) -> str:
        """The same as graph nodes: float32 [batch, width]."""
        mask = graph.cast(graph.op("Unsqueeze", attention_mask, graph.ints([2])))
        look = surface.add_features(graph, self.attributes, input_ids, mask)
        limit = _CLIP / np.sqrt(len(self.surface_mean))
        centred = graph.op("Sub", look, graph.floats(self.surface_mean))
        standard = graph.op("Mul", centred, graph.floats(self.surface_scale))
        standard = graph.op("Clip", standard, graph.floats(-limit), graph.floats(limit))
        pools = word_vectors.add_pool(graph, self.vectors, input_ids, mask)
        pools = graph.op("Sub", pools, graph.floats(self.pool_mean))
        halves = graph.op("Reshape", pools, graph.ints([0, 2, self.vectors.codes.shape[1]]))
        length = graph.op("ReduceL2", halves, graph.ints([2]), keepdims=1)
        units = graph.op("Div", halves, graph.op("Max", length, graph.floats(_SHORT)))
        flat = graph.op("Reshape", units, graph.ints([0, self.vectors.width]))
        return graph.op("Concat", standard, flat, axis=1)


@dataclass(frozen=True, slots=True)
class LinearHead:
    """`sigmoid(slope * (x @ weights) + offset)`; a positive slope keeps the order of the linear scores."""

    weights: Floats
    slope: float
    offset: float

    def __call__(self, features: Floats) -> Floats:
        """[prompts, width] -> win probabilities [prompts]."""
        logit = np.float32(self.slope) * (features @ self.weights) + np.float32(self.offset)
        probability: Floats = 1.0 / (1.0 + np.exp(-logit))
        return probability

    def add(self, graph: GraphBuilder, features: str) -> str:
        """The same as graph nodes: [batch]."""
        score = graph.op("MatMul", features, graph.floats(self.weights))
        logit = graph.op("Add", graph.op("Mul", score, graph.floats(self.slope)), graph.floats(self.offset))
        return graph.op("Sigmoid", logit)


@dataclass(frozen=True, slots=True)
class StaticRouter:
    """A trained router of this kind."""

    tokenizer_json: str
    features: StaticFeatures
    head: LinearHead

    kind = KIND
    preprocess = PREPROCESS

    def win_probability(self, rows: Sequence[Sequence[int]]) -> Floats:
        """What training says about prompts given as token ids. [prompts]."""
        return self.head(self.features(TokenRows.of(rows)))

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        input_ids = graph.input("input_ids", ["batch", "tokens"])
        attention_mask = graph.input("attention_mask", ["batch", "tokens"])
        probability = self.head.add(graph, self.features.add(graph, input_ids, attention_mask))
        return graph.build({"win_probability": (probability, ["batch"])}, KIND)


_SHORT = 1e-6
"""A shorter vector is left as it is instead of being blown up to unit length."""


def _unit(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.maximum(length, np.float32(_SHORT))
    return unit


def _raw(attributes: NDArray[np.int8], vectors: WordVectors, rows: TokenRows) -> tuple[Floats, Floats]:
    parts = [(surface.features(attributes, block), word_vectors.pool(vectors, block)) for block in rows.blocks(_BLOCK)]
    return np.concatenate([look for look, _ in parts]), np.concatenate([pools for _, pools in parts])
