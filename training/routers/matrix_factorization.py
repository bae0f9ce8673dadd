"""`mf`: matrix factorisation over all models (RouteLLM, section 4.2).

The strength of model M on prompt q is δ(M, q) = w₂ᵀ(v̂_M ⊙ W₁ᵀe(q)), with v̂_M of unit length and e(q) the prompt's
embedding; P(s beats w | q) = σ(δ(s, q) − δ(w, q)) before calibration. For a fixed pair that is one linear layer on
the embedding. Neither layer has a bias: the embedding carries a constant instead, as the paper's embeddings do by
nature and ours, which are nearly centred, do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from scorer_service.preprocess import PreprocessSpec
from training import pair_curves
from training.embeddings import Embedding
from training.onnx_graph import GraphBuilder
from training.pair_curves import PairCurves

KIND = "mf"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Factors:
    """The trained numbers.

    Attributes:
        projection: W₁, [width of the embedding + 1, dimensions].
        models: v̂, [models, dimensions], rows of unit length.
        weights: w₂, [dimensions].
    """

    projection: Floats
    models: Floats
    weights: Floats

    def strengths(self, embeddings: Floats) -> Floats:
        """δ of every model, [prompts, models]."""
        result: Floats = with_constant(embeddings) @ self.projection @ (self.weights * self.models).T
        return result

    def pair(self, strong: int, weak: int) -> Floats:
        """The linear layer that the whole model is for one pair: δ_s − δ_w = e(q) · layer. [width + 1]."""
        layer: Floats = self.projection @ (self.weights * (self.models[strong] - self.models[weak]))
        return layer


def with_constant(embeddings: Floats) -> Floats:
    """Append a column of ones."""
    return np.concatenate([embeddings, np.ones((len(embeddings), 1), np.float32)], axis=1)


@dataclass(frozen=True, slots=True)
class MatrixFactorizationRouter:
    """A trained router of this kind. `models` are strongest first; the pair is that of their names."""

    embedding: Embedding
    factors: Factors
    curves: PairCurves
    models: tuple[str, ...]
    strong_model: str
    weak_model: str

    kind: str = field(default=KIND, init=False)

    @property
    def preprocess(self) -> PreprocessSpec:
        return self.embedding.preprocess

    @property
    def tokenizer_json(self) -> str:
        return self.embedding.tokenizer_json

    def strengths(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Raw strength of every model on prompts given as token ids. [prompts, models]."""
        return self.factors.strengths(self.embedding(rows))

    def win_probability(self, rows: Sequence[Sequence[int]]) -> Floats:
        """What training says about prompts given as token ids, for the default pair. [prompts]."""
        strengths = self.strengths(rows)
        strong, weak = self.models.index(self.strong_model), self.models.index(self.weak_model)
        return self.curves(strengths[:, strong] - strengths[:, weak], strong, weak).astype(np.float32)

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        embedding = self.embedding.add(graph, ids, mask)
        # One product for projection and models: [batch, width] x [width, models], and the constant's share.
        layers = self.factors.projection @ (self.factors.weights * self.factors.models).T
        strengths = graph.op("MatMul", embedding, graph.floats(layers[:-1], "layers"))
        strengths = graph.op("Add", strengths, graph.floats(layers[-1], "constant"))
        return graph.build(pair_curves.add_outputs(graph, strengths, self.curves), KIND)
