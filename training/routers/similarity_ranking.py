"""`sw`: similarity-weighted ranking (RouteLLM, section 4.1). No training: a Bradley-Terry fit for every prompt.

All battles count, those of similar prompts more: battle i weighs 10 · 10^(sim_i / max_j sim_j), sim_i being the cosine
of its prompt and ours. Models are replaced by their tier. P(s beats w) = 1 / (1 + exp(R_w − R_s)), where the weighted
fit gives R in natural units; 400 / ln 10 of them make Elo points. The paper prints the sign the other way round.

A fit needs no battle, only how often tiers beat each other. So each prompt keeps its wins of tier over tier, one
product with the weights sums them, and Newton's method does the rest: all of it in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from scorer_service.preprocess import PreprocessSpec
from training import pair_curves
from training.embeddings import Embedding
from training.onnx_graph import ORT_DOMAIN, GraphBuilder
from training.pair_curves import PairCurves

KIND = "sw"

Floats = NDArray[np.float32]

_STEPS = 4
"""Newton steps from the unweighted fit. On the shared data three leave an error of 1e-7 and four of 1e-13."""

_IMAGINED = 1e-6
"""Ties between any two tiers, as a share of all weight: a fit has an answer even where one side always wins."""

_SMALLEST_TOP = 1e-3
"""Of the largest similarity, which divides: a prompt unlike all others weighs all alike."""

_BLOCK = 512
"""Prompts whose similarities are held in memory at once."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The battles, by prompt.

    Attributes:
        vectors: unit embeddings, [prompts, width].
        wins: of tier over tier, a tie counting one half: [prompts, pairs, 2], the pairs those of `tier_pairs`.
        tiers: the tier of each model, [models]; tier 0 is the strongest.
        start: the unweighted fit's strengths, [tiers], the last being 0.
    """

    vectors: Floats
    wins: Floats
    tiers: NDArray[np.int64]
    start: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Floats, wins: Floats, tiers: NDArray[np.int64]) -> "Ranking":
        """Fit the unweighted strengths; the arguments are the attributes."""
        flat = np.zeros(int(tiers.max()) + 1)
        return cls(vectors, wins, tiers, _fit(wins.sum(axis=0, dtype=np.float64)[None], flat, steps=30)[0])

    def strengths(self, embeddings: Floats, among: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Natural log-strength of every model, [prompts, models].

        Args:
            embeddings: unit vectors of the prompts that are asked about.
            among: which of the ranking's prompts count; all, if it is None.
        """
        vectors, wins = (self.vectors, self.wins) if among is None else (self.vectors[among], self.wins[among])
        flat = wins.reshape(len(wins), -1).astype(np.float64)
        fitted = []
        for start in range(0, len(embeddings), _BLOCK):
            similar = embeddings[start : start + _BLOCK] @ vectors.T
            weights = 10.0 ** (1.0 + similar / np.maximum(similar.max(axis=1, keepdims=True), _SMALLEST_TOP))
            fitted.append(_fit((weights @ flat).reshape(len(weights), -1, 2), self.start, steps=_STEPS))
        strengths: NDArray[np.float64] = np.concatenate(fitted)[:, self.tiers]
        return strengths


def tier_pairs(tiers: int) -> NDArray[np.int64]:
    """All pairs of tiers, the stronger first: [pairs, 2]."""
    return np.stack(np.triu_indices(tiers, 1), axis=1)


def _differences(tiers: int) -> NDArray[np.float64]:
    """Strengths of all tiers but the last, which is 0, times this: their difference per pair. [tiers - 1, pairs]."""
    pairs = tier_pairs(tiers)
    matrix = np.zeros((tiers, len(pairs)))
    matrix[pairs[:, 0], np.arange(len(pairs))] = 1.0
    matrix[pairs[:, 1], np.arange(len(pairs))] = -1.0
    return matrix[:-1]


def _fit(wins: NDArray[np.float64], start: NDArray[np.float64], *, steps: int) -> NDArray[np.float64]:
    """Bradley-Terry strengths of many tables at once: [tables, pairs, 2] -> [tables, tiers], the last tier at 0."""
    won, lost = np.moveaxis(wins / wins.sum(axis=(1, 2), keepdims=True) + _IMAGINED, 2, 0)
    played = won + lost
    pairs = _differences(len(start))
    curvature = np.einsum("ap,bp->pab", pairs, pairs).reshape(pairs.shape[1], -1)
    strengths = np.repeat(start[None, :-1], len(wins), axis=0)
    for _ in range(steps):
        expected = 1.0 / (1.0 + np.exp(-strengths @ pairs))
        gradient = (won - played * expected) @ pairs.T
        hessian = ((played * expected * (1.0 - expected)) @ curvature).reshape(len(wins), len(pairs), len(pairs))
        strengths = strengths + np.linalg.solve(hessian, gradient[..., None])[..., 0]
    return np.concatenate([strengths, np.zeros((len(wins), 1))], axis=1)


@dataclass(frozen=True, slots=True)
class SimilarityRankingRouter:
    """A router of this kind. `models` are strongest first; the pair is that of their names."""

    embedding: Embedding
    ranking: Ranking
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

    def strengths(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Raw strength of every model on prompts given as token ids. [prompts, models]."""
        return self.ranking.strengths(self.embedding(rows))

    def win_probability(self, rows: Sequence[Sequence[int]]) -> Floats:
        """What training says about prompts given as token ids, for the default pair. [prompts]."""
        strengths = self.strengths(rows)
        strong, weak = self.models.index(self.strong_model), self.models.index(self.weak_model)
        return self.curves(strengths[:, strong] - strengths[:, weak], strong, weak).astype(np.float32)

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        tiers = add_ranking(graph, self.ranking, self.embedding.add(graph, ids, mask))
        strengths = graph.op("Gather", tiers, graph.ints(self.ranking.tiers), axis=1)
        return graph.build(pair_curves.add_outputs(graph, strengths, self.curves), KIND)


def add_ranking(graph: GraphBuilder, ranking: Ranking, embedding: str) -> str:
    """The fit as graph nodes: float32 [batch, width] -> strengths [batch, tiers]."""
    along = graph.ints([1])
    similar = graph.op("MatMul", embedding, graph.floats(ranking.vectors.T, "vectors"))
    top = graph.op("Max", graph.op("ReduceMax", similar, along, keepdims=1), graph.floats(_SMALLEST_TOP))
    # The factor 10 of every weight cancels, as all that scales all battles alike does.
    weights = graph.op("Exp", graph.op("Mul", similar, graph.op("Div", graph.floats(np.log(10.0)), top)))
    # Wins of the stronger tier of each pair, then of the weaker one.
    table = np.concatenate([ranking.wins[:, :, 0], ranking.wins[:, :, 1]], axis=1)
    counted = graph.op("MatMul", weights, graph.floats(table / table.sum(), "wins"))
    shares = graph.op("Div", counted, graph.op("ReduceSum", counted, along, keepdims=1))
    won, lost = _halves(graph, graph.op("Add", shares, graph.floats(_IMAGINED)), table.shape[1] // 2)
    return _add_fit(graph, won, graph.op("Add", won, lost), ranking.start)


def _halves(graph: GraphBuilder, value: str, width: int) -> tuple[str, str]:
    parts = [
        graph.op("Slice", value, graph.ints([i * width]), graph.ints([(i + 1) * width]), graph.ints([1]))
        for i in (0, 1)
    ]
    return parts[0], parts[1]


def _add_fit(graph: GraphBuilder, won: str, played: str, start: NDArray[np.float64]) -> str:
    """`_fit` as graph nodes. `won`, `played`: [batch, pairs]."""
    pairs = _differences(len(start))
    free = len(pairs)
    by_pair, by_tier = graph.floats(pairs, "pairs"), graph.floats(pairs.T, "tiers")
    # A pair's curvature touches four cells of the tiers' Hessian; the gradient is its right-hand side.
    curvature = np.einsum("ap,bp->pab", pairs, pairs)
    by_cell = graph.floats(curvature.reshape(pairs.shape[1], -1), "cells")
    one, square, column = graph.floats(1.0), graph.ints([-1, free, free]), graph.ints([2])
    strengths = graph.floats(start[None, :-1], "start")
    for _ in range(_STEPS):
        expected = graph.op("Sigmoid", graph.op("MatMul", strengths, by_pair))
        hoped = graph.op("Mul", played, expected)
        gradient = graph.op("MatMul", graph.op("Sub", won, hoped), by_tier)
        spread = graph.op("Mul", hoped, graph.op("Sub", one, expected))
        hessian = graph.op("Reshape", graph.op("MatMul", spread, by_cell), square)
        # One node of ONNX Runtime's own: eliminating tier by tier took half of the graph's time.
        inverse = graph.op("Inverse", hessian, domain=ORT_DOMAIN)
        step = graph.op("MatMul", inverse, graph.op("Unsqueeze", gradient, column))
        strengths = graph.op("Add", strengths, graph.op("Squeeze", step, column))
    last = graph.op(
        "Mul", graph.op("Slice", strengths, graph.ints([0]), graph.ints([1]), graph.ints([1])), graph.floats(0.0)
    )
    return graph.op("Concat", strengths, last, axis=1)
