"""The first feature block of `static` and `kernel`: surface features, standardised, in numpy and as graph nodes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training import surface
from training.onnx_graph import GraphBuilder
from training.token_rows import TokenRows

Floats = NDArray[np.float32]

CLIP = 4.0
"""Standard deviations beyond which a surface feature says no more."""

SHORT = 1e-6
"""A shorter vector is left as it is instead of being blown up to unit length."""

_BLOCK = 2_000
"""Prompts whose token attributes are held in memory at once."""


@dataclass(frozen=True, slots=True)
class StandardSurface:
    """Surface features of unit mean square over the training prompts, clipped at ±`CLIP` deviations.

    Attributes:
        attributes: int8 [vocabulary, attributes], see `surface`.
        mean, scale: [surface features].
    """

    attributes: NDArray[np.int8]
    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, attributes: NDArray[np.int8], rows: TokenRows) -> "StandardSurface":
        """Take means and scales from these prompts."""
        look = raw_surface(attributes, rows)
        scale = look.std(axis=0) * np.sqrt(look.shape[1])
        # A feature that never varies says nothing: leave it at zero.
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-6)
        return cls(attributes, look.mean(axis=0), inverse)

    def __call__(self, rows: TokenRows) -> Floats:
        """[prompts, surface features]."""
        limit = np.float32(CLIP / np.sqrt(len(self.mean)))
        standard: Floats = np.clip((raw_surface(self.attributes, rows) - self.mean) * self.scale, -limit, limit)
        return standard

    def add(self, graph: GraphBuilder, input_ids: str, mask: str) -> str:
        """The same as graph nodes; `mask` is float32 [batch, tokens, 1]."""
        look = surface.add_features(graph, self.attributes, input_ids, mask)
        limit = CLIP / np.sqrt(len(self.mean))
        centred = graph.op("Sub", look, graph.floats(self.mean, "surface_mean"))
        standard = graph.op("Mul", centred, graph.floats(self.scale, "surface_scale"))
        return graph.op("Clip", standard, graph.floats(-limit), graph.floats(limit))


def raw_surface(attributes: NDArray[np.int8], rows: TokenRows) -> Floats:
    """Surface features as they are counted, [prompts, surface features]."""
    return np.concatenate([surface.features(attributes, block) for block in rows.blocks(_BLOCK)])


def unit(rows: Floats) -> Floats:
    """Each row at length 1."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Floats = rows / np.maximum(length, np.float32(SHORT))
    return scaled


def add_unit(graph: GraphBuilder, rows: str) -> str:
    """The same as graph nodes, along the last axis."""
    length = graph.op("ReduceL2", rows, graph.ints([-1]), keepdims=1)
    return graph.op("Div", rows, graph.op("Max", length, graph.floats(SHORT)))
