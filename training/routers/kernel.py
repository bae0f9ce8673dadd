"""`kernel`: the middle layers of MiniLM and surface features under a kernel of difficulty, in one graph.

The middle layers carry how hard a text is; the final one carries what it is about. This is the most accurate router
here, at the price of an encoder, and the teacher of `static`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from scorer_service.preprocess import PreprocessSpec
from training import minilm
from training.minilm import MiniLm
from training.onnx_graph import GraphBuilder
from training.routers import difficulty_kernel
from training.routers.blocks import StandardSurface, add_unit, unit
from training.routers.difficulty_kernel import DifficultyKernel
from training.token_rows import TokenRows

KIND = "kernel"

LAYERS = (2, 3, 4, 5)
"""Hidden states whose token means are features."""

WINDOW = 256
"""Tokens that the encoder reads, as in `encoder`; surface features are counted over all of them."""

PREPROCESS = PreprocessSpec(max_tokens=8192, truncation_side="right", pad_id=minilm.PAD, add_special_tokens=True)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KernelFeatures:
    """Token ids and token means of MiniLM's layers -> one row of numbers per prompt.

    Blocks of unit mean square: standardised surface features, then each layer's token mean, centred, of unit length.

    Attributes:
        surface: the first block.
        layer_means: [layers, 384].
    """

    surface: StandardSurface
    layer_means: Floats

    @classmethod
    def fit(cls, attributes: NDArray[np.int8], rows: TokenRows, states: Floats) -> "KernelFeatures":
        """Take means and scales from these prompts; `states` is [prompts, layers, 384]."""
        return cls(StandardSurface.fit(attributes, rows), states.mean(axis=0))

    def __call__(self, rows: TokenRows, states: Floats) -> Floats:
        """[prompts, width]."""
        layers = unit(states - self.layer_means).reshape(len(states), -1)
        return np.concatenate([self.surface(rows), layers], axis=1, dtype=np.float32)

    def add(self, graph: GraphBuilder, model: MiniLm, input_ids: str, attention_mask: str) -> str:
        """The same as graph nodes: float32 [batch, width]."""
        mask = graph.cast(graph.op("Unsqueeze", attention_mask, graph.ints([2])))
        look = self.surface.add(graph, input_ids, mask)
        states = add_states(graph, model, input_ids, attention_mask)
        centred = graph.op("Sub", states, graph.floats(self.layer_means, "layer_means"))
        layers = graph.op("Reshape", add_unit(graph, centred), graph.ints([0, self.layer_means.size]))
        return graph.op("Concat", look, layers, axis=1)


@dataclass(frozen=True, slots=True)
class KernelRouter:
    """A trained router of this kind."""

    model: MiniLm
    features: KernelFeatures
    head: DifficultyKernel

    kind = KIND
    preprocess = PREPROCESS

    @property
    def tokenizer_json(self) -> str:
        return self.model.tokenizer_json

    def win_probability(self, rows: Sequence[Sequence[int]]) -> Floats:
        """What training says about prompts given as token ids, [prompts]: the encoder's layers, then numpy."""
        return self.head(self.features(TokenRows.of(rows), self._states(rows)))

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served, encoder and all."""
        graph = GraphBuilder()
        input_ids = graph.input("input_ids", ["batch", "tokens"])
        attention_mask = graph.input("attention_mask", ["batch", "tokens"])
        probability = self.head.add(graph, self.features.add(graph, self.model, input_ids, attention_mask))
        return graph.build({"win_probability": (probability, ["batch"])}, KIND)

    def _states(self, rows: Sequence[Sequence[int]]) -> Floats:
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        shape: list[str | int] = ["batch", len(LAYERS), minilm.WIDTH]
        built = graph.build({"states": (add_states(graph, self.model, ids, mask), shape)}, "states")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(built.SerializeToString(), options, providers=["CPUExecutionProvider"])
        # Cut here as well, so that the graph's own window is checked against something.
        cut = [row if len(row) <= WINDOW else (*row[: WINDOW - 1], minilm.SEP) for row in rows]
        feeds = [np.array([row], np.int64) for row in cut]
        return np.concatenate(
            [session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})[0] for row in feeds]
        )


def read(artifact: ScorerArtifact) -> KernelRouter:
    """Take the router back out of an artefact of this kind; the encoder comes from its package.

    Raises:
        KeyError: its graph is of another kind.
        EncoderMissingError: the package is not there.
    """
    constants = difficulty_kernel.constants_of(onnx.load(artifact.model_path))
    one = difficulty_kernel.one
    surface = StandardSurface(
        one(constants, "attributes"), one(constants, "surface_mean"), one(constants, "surface_scale")
    )
    features = KernelFeatures(surface, one(constants, "layer_means"))
    return KernelRouter(minilm.load(), features, difficulty_kernel.read(constants))


def add_states(graph: GraphBuilder, model: MiniLm, input_ids: str, attention_mask: str) -> str:
    """Token means of `LAYERS` over the first `WINDOW` tokens, the last of them [SEP]: [batch, layers, 384]."""
    ids, mask = _add_window(graph, input_ids, attention_mask)
    hidden = minilm.add_encoder(graph, model, ids, mask, LAYERS)
    pools = [graph.op("Unsqueeze", minilm.add_mean_pool(graph, layer, mask), graph.ints([1])) for layer in hidden]
    return graph.op("Concat", *pools, axis=1)


def _add_window(graph: GraphBuilder, input_ids: str, attention_mask: str) -> tuple[str, str]:
    along = graph.ints([1])

    def part(value: str, start: int, end: int) -> str:
        return graph.op("Slice", value, graph.ints([start]), graph.ints([end]), along)

    # Where a prompt reaches the window's last place, [SEP] stands there: cut ones end like whole ones.
    closing = graph.op("Mul", part(attention_mask, WINDOW - 1, WINDOW), graph.ints(minilm.SEP))
    ids = graph.op("Concat", part(input_ids, 0, WINDOW - 1), closing, axis=1)
    return ids, part(attention_mask, 0, WINDOW)
