"""`static`: word vectors and surface features under a kernel of difficulty. A few gathers and small products.

It reads every token of a prompt up to a window that is far beyond any encoder's, and is the shipped default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from scorer_service.preprocess import PreprocessSpec
from training import minilm, word_vectors
from training.onnx_graph import GraphBuilder
from training.routers import difficulty_kernel
from training.routers.blocks import StandardSurface, add_unit, unit
from training.routers.difficulty_kernel import DifficultyKernel
from training.token_rows import TokenRows
from training.word_vectors import WordVectors

KIND = "static"

PREPROCESS = PreprocessSpec(max_tokens=8192, truncation_side="right", pad_id=minilm.PAD, add_special_tokens=True)

_BLOCK = 2_000
"""Prompts whose word vectors are held in memory at once."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StaticFeatures:
    """Token ids -> one row of numbers per prompt.

    Three blocks, each of unit mean square over the training prompts: standardised surface features, and the two
    word-vector means, centred and of unit length.

    Attributes:
        surface: the first block.
        vectors: the word vectors.
        pool_mean: [vectors.width].
    """

    surface: StandardSurface
    vectors: WordVectors
    pool_mean: Floats

    @classmethod
    def fit(cls, attributes: NDArray[np.int8], vectors: WordVectors, rows: TokenRows) -> "StaticFeatures":
        """Take means and scales from these prompts; `attributes` as `surface.attribute_table` makes them."""
        return cls(StandardSurface.fit(attributes, rows), vectors, _pools(vectors, rows).mean(axis=0))

    @property
    def width(self) -> int:
        """Columns of the result."""
        return len(self.surface.mean) + len(self.pool_mean)

    def __call__(self, rows: TokenRows) -> Floats:
        """[prompts, width]."""
        halves = np.split(_pools(self.vectors, rows) - self.pool_mean, 2, axis=1)
        return np.concatenate([self.surface(rows), *(unit(half) for half in halves)], axis=1, dtype=np.float32)

    def add(self, graph: GraphBuilder, input_ids: str, attention_mask: str) -> str:
        """The same as graph nodes: float32 [batch, width]."""
        mask = graph.cast(graph.op("Unsqueeze", attention_mask, graph.ints([2])))
        look = self.surface.add(graph, input_ids, mask)
        pools = word_vectors.add_pool(graph, self.vectors, input_ids, mask)
        pools = graph.op("Sub", pools, graph.floats(self.pool_mean, "pool_mean"))
        halves = graph.op("Reshape", pools, graph.ints([0, 2, self.vectors.codes.shape[1]]))
        flat = graph.op("Reshape", add_unit(graph, halves), graph.ints([0, self.vectors.width]))
        return graph.op("Concat", look, flat, axis=1)


@dataclass(frozen=True, slots=True)
class StaticRouter:
    """A trained router of this kind."""

    tokenizer_json: str
    features: StaticFeatures
    head: DifficultyKernel

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


def read(artifact: ScorerArtifact) -> StaticRouter:
    """Take the router back out of an artefact of this kind.

    Raises:
        KeyError: its graph is of another kind, or of an older version of this one.
    """
    constants = difficulty_kernel.constants_of(onnx.load(artifact.model_path))
    one = difficulty_kernel.one
    surface = StandardSurface(
        one(constants, "attributes"), one(constants, "surface_mean"), one(constants, "surface_scale")
    )
    vectors = WordVectors(one(constants, "codes"), one(constants, "scales")[:, 0], one(constants, "weights"))
    features = StaticFeatures(surface, vectors, one(constants, "pool_mean"))
    return StaticRouter(
        artifact.tokenizer_path.read_text(encoding="utf-8"), features, difficulty_kernel.read(constants)
    )


def _pools(vectors: WordVectors, rows: TokenRows) -> Floats:
    return np.concatenate([word_vectors.pool(vectors, block) for block in rows.blocks(_BLOCK)])
