"""Static word vectors: MiniLM's input embeddings, cut to a few dimensions and to 8 bits.

A prompt is two weighted means of its tokens' vectors. Nothing else in the encoder is needed, so a prompt of any
length costs microseconds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.onnx_graph import GraphBuilder
from training.token_rows import TokenRows

_EPSILON = 1e-6
"""Keeps the mean of a prompt without any weighted token at zero instead of 0/0."""


@dataclass(frozen=True, slots=True)
class WordVectors:
    """A quantised table.

    Attributes:
        codes: int8 [vocabulary, width]; a vector is `codes[i] * scales[i]`.
        scales: float32 [vocabulary].
        weights: float32 [vocabulary, 2], each token's share in the two pools: inverse document frequency, and
            one for every token that is not a control token.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    weights: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Columns that `pool` returns."""
        return int(self.codes.shape[1] * self.weights.shape[1])


def build(
    embeddings: NDArray[np.float32], documents: TokenRows, *, dimensions: int, control: tuple[int, ...]
) -> WordVectors:
    """Reduce an embedding table to the directions in which the documents' words differ.

    Args:
        embeddings: [vocabulary, width].
        documents: the prompts whose words are counted.
        dimensions: columns to keep.
        control: ids of tokens that are no words and get no weight.
    """
    count = len(documents.starts)
    # A token counts once per document: (document, token) as one number, without repeats.
    occurrences = np.unique(np.repeat(np.arange(count), documents.lengths) * len(embeddings) + documents.ids)
    frequency = np.bincount(occurrences % len(embeddings), minlength=len(embeddings)).astype(np.float64)
    idf = np.log((1.0 + count) / (1.0 + frequency))
    weights = np.stack([idf, np.ones_like(idf)], axis=1)
    weights[list(control)] = 0.0

    # Principal directions of words as often as documents hold them, so that rare scripts do not take the columns.
    mass = (frequency * weights[:, 0])[:, None]
    centre = (mass * embeddings).sum(0) / mass.sum()
    centred = embeddings - centre
    _, directions = np.linalg.eigh((mass * centred).T @ centred / mass.sum())
    reduced = centred @ _fixed_signs(directions[:, ::-1][:, :dimensions])
    scales = np.abs(reduced).max(axis=1) / 127.0
    codes = np.rint(reduced / scales[:, None])
    return WordVectors(codes.astype(np.int8), scales.astype(np.float32), weights.astype(np.float32))


def pool(table: WordVectors, rows: TokenRows) -> NDArray[np.float32]:
    """The weighted means, side by side, in numpy. [prompts, table.width]."""
    vectors = table.codes[rows.ids] * table.scales[rows.ids, None]
    weights = table.weights[rows.ids]
    means = [
        rows.sum(vectors * weight[:, None]) / (rows.sum(weight[:, None]) + np.float32(_EPSILON)) for weight in weights.T
    ]
    return np.concatenate(means, axis=1)


def add_pool(graph: GraphBuilder, table: WordVectors, input_ids: str, mask: str) -> str:
    """The same means as graph nodes.

    Args:
        input_ids: int64 [batch, tokens].
        mask: float32 [batch, tokens, 1].

    Returns:
        float32 [batch, table.width].
    """
    codes = graph.cast(graph.op("Gather", graph.constant(table.codes, np.int8, "codes"), input_ids))
    scales = graph.op("Gather", graph.floats(table.scales[:, None], "scales"), input_ids)
    weights = graph.op("Mul", graph.op("Gather", graph.floats(table.weights, "weights"), input_ids), mask)
    vectors = graph.op("Mul", codes, scales)
    # [batch, 2, tokens] x [batch, tokens, width] sums every pool at once.
    sums = graph.op("MatMul", graph.op("Transpose", weights, perm=[0, 2, 1]), vectors)
    shares = graph.op("ReduceSum", weights, graph.ints([1]), keepdims=0)
    shares = graph.op("Unsqueeze", graph.op("Add", shares, graph.floats(_EPSILON)), graph.ints([2]))
    return graph.op("Reshape", graph.op("Div", sums, shares), graph.ints([0, table.width]))


def _fixed_signs(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """An eigenvector's sign is free: choose the one whose largest entry is positive, on every machine."""
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    fixed: NDArray[np.float64] = directions * np.sign(largest)
    return fixed
