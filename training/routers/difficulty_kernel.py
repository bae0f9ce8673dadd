"""What `kernel` and `static` share: experts that compare a prompt with landmarks, in words and in difficulty.

The gain from the strong model peaks at medium difficulty: on easy prompts both models are right, on hopeless ones both
are wrong. A score that is linear in difficulty cannot see that; a Gaussian kernel on predicted difficulty can. So
each expert is a kernel machine on ½·exp(−|x − z|²) of the features and ½·exp(−|d − e|²) of the difficulty profiles
of prompt and landmark. A gate that reads the form of a prompt mixes the experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from training.onnx_graph import GraphBuilder

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Machine:
    """One expert: `kernel(x, landmarks) @ weights + bias`.

    Attributes:
        landmarks: features of the prompts it compares with, times `text_rate`, [landmarks, width].
        profiles: their standardised difficulty profiles, times `profile_rate`, [landmarks, heads].
        text_rate: a squared distance of 1 after it lets the first kernel fall to 1/e.
        profile_mean, profile_rate: standardise a profile and scale it likewise, [heads].
        weights: [landmarks].
        bias: the score far from all landmarks.
    """

    landmarks: Floats
    profiles: Floats
    text_rate: float
    profile_mean: Floats
    profile_rate: Floats
    weights: Doubles
    bias: float

    def kernel(self, features: Floats, profiles: Floats) -> Floats:
        """[prompts, landmarks]."""
        text = gaussian(features * np.float32(self.text_rate), self.landmarks)
        standard = (profiles - self.profile_mean) * self.profile_rate
        return np.float32(0.5) * (text + gaussian(standard, self.profiles))

    def __call__(self, features: Floats, profiles: Floats) -> Doubles:
        """Scores, 2·(win probability) − 1 before calibration, [prompts]."""
        scores: Doubles = self.kernel(features, profiles).astype(np.float64) @ self.weights + self.bias
        return scores

    def add(self, graph: GraphBuilder, features: str, profiles: str) -> str:
        """The same as graph nodes: float64 [batch, 1]."""
        scaled = graph.op("Mul", features, graph.floats(self.text_rate, "machine_text_rate"))
        text = add_gaussian(graph, scaled, self.landmarks, "machine_landmarks")
        centred = graph.op("Sub", profiles, graph.floats(self.profile_mean, "machine_profile_mean"))
        standard = graph.op("Mul", centred, graph.floats(self.profile_rate, "machine_profile_rate"))
        both = graph.op("Add", text, add_gaussian(graph, standard, self.profiles, "machine_profiles"))
        # Many landmarks nearly cancel out: in float32 a prompt's score would show how its batch was summed.
        kernel = graph.op("Mul", graph.cast(both, TensorProto.DOUBLE), graph.constant(0.5, np.float64))
        weights = graph.constant(self.weights[:, None], np.float64, "machine_weights")
        bias = graph.constant(self.bias, np.float64, "machine_bias")
        return graph.op("Add", graph.op("MatMul", kernel, weights), bias)


@dataclass(frozen=True, slots=True)
class DifficultyKernel:
    """Features -> calibrated win probability.

    Attributes:
        heads, heads_bias: linear difficulty heads on the features, [width, heads] and [heads].
        gate, gate_bias: of the softmax over the first experts, from the first columns of the features,
            [columns, gated] and [gated].
        machines: the experts. Those beyond the gated ones count in full for every prompt: adaptation adds them.
        slope, offset: of the logistic calibrator; a positive slope keeps the order of scores.
    """

    heads: Floats
    heads_bias: Floats
    gate: Floats
    gate_bias: Floats
    machines: tuple[Machine, ...]
    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not self.slope > 0.0:
            raise ValueError("the calibrator must rise: its slope is not positive")

    def profile(self, features: Floats) -> Floats:
        """Predicted difficulty, [prompts, heads]."""
        profiles: Floats = features @ self.heads + self.heads_bias
        return profiles

    def mixture(self, features: Floats) -> Doubles:
        """How much each expert counts, [prompts, machines]."""
        logits = (features[:, : len(self.gate)] @ self.gate + self.gate_bias).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        full = np.ones((len(features), len(self.machines) - self.gate.shape[1]))
        return np.concatenate([shares, full], axis=1)

    def score(self, features: Floats) -> Doubles:
        """The experts' mixed scores before calibration, [prompts]."""
        profiles = self.profile(features)
        experts = np.stack([machine(features, profiles) for machine in self.machines], axis=1)
        mixed: Doubles = (self.mixture(features) * experts).sum(axis=1)
        return mixed

    def __call__(self, features: Floats) -> Floats:
        """Win probabilities, [prompts]."""
        return (1.0 / (1.0 + np.exp(-(self.slope * self.score(features) + self.offset)))).astype(np.float32)

    def add(self, graph: GraphBuilder, features: str) -> str:
        """The same as graph nodes: float32 [batch]."""
        projected = graph.op("MatMul", features, graph.floats(self.heads, "heads"))
        profiles = graph.op("Add", projected, graph.floats(self.heads_bias, "heads_offset"))
        scores = graph.op("Concat", *(machine.add(graph, features, profiles) for machine in self.machines), axis=1)
        form = graph.op("Slice", features, graph.ints([0]), graph.ints([len(self.gate)]), graph.ints([1]))
        logits = graph.op("MatMul", form, graph.floats(self.gate, "gate"))
        logits = graph.op("Add", logits, graph.floats(self.gate_bias, "gate_offset"))
        shares = graph.cast(graph.op("Softmax", logits, axis=1), TensorProto.DOUBLE)
        gated = self.gate.shape[1]
        experts = graph.op("Slice", scores, graph.ints([0]), graph.ints([gated]), graph.ints([1]))
        mixed = _add_row_sum(graph, graph.op("Mul", shares, experts))
        if gated < len(self.machines):
            end = graph.ints([np.iinfo(np.int64).max])
            rest = graph.op("Slice", scores, graph.ints([gated]), end, graph.ints([1]))
            mixed = graph.op("Add", mixed, _add_row_sum(graph, rest))
        slope = graph.constant(self.slope, np.float64, "calibrator_slope")
        offset = graph.constant(self.offset, np.float64, "calibrator_offset")
        probability = graph.op("Sigmoid", graph.op("Add", graph.op("Mul", mixed, slope), offset))
        return graph.cast(probability)


def read(constants: Mapping[str, NDArray[Any]]) -> DifficultyKernel:
    """Take the kernel back out of a graph's constants (see `constants_of`), to go on from a shipped artefact.

    Raises:
        KeyError: the graph is of another kind.
    """
    machines: dict[str, list[NDArray[Any]]] = {
        field: list_of(constants, f"machine_{field}")
        for field in ("landmarks", "profiles", "text_rate", "profile_mean", "profile_rate", "weights", "bias")
    }
    count = len(machines["weights"])
    return DifficultyKernel(
        heads=one(constants, "heads"),
        heads_bias=one(constants, "heads_offset"),
        gate=one(constants, "gate"),
        gate_bias=one(constants, "gate_offset"),
        machines=tuple(
            Machine(
                landmarks=machines["landmarks"][number],
                profiles=machines["profiles"][number],
                text_rate=float(machines["text_rate"][number]),
                profile_mean=machines["profile_mean"][number],
                profile_rate=machines["profile_rate"][number],
                weights=machines["weights"][number][:, 0].astype(np.float64),
                bias=float(machines["bias"][number]),
            )
            for number in range(count)
        ),
        slope=float(one(constants, "calibrator_slope")),
        offset=float(one(constants, "calibrator_offset")),
    )


def constants_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """A graph's constants by name, in the order in which they were added."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def list_of(constants: Mapping[str, NDArray[Any]], name: str) -> list[NDArray[Any]]:
    """All constants that were added under this name: `GraphBuilder` puts a number behind it."""
    return [value for key, value in constants.items() if key.rpartition("_")[0] == name]


def one(constants: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """The only constant of this name.

    Raises:
        KeyError: there is none, or there are several.
    """
    found = list_of(constants, name)
    if len(found) != 1:
        raise KeyError(name)
    return found[0]


def gaussian(left: Floats, right: Floats) -> Floats:
    """exp(−|x − z|²) of every two rows, [left, right]."""
    product = left @ right.T
    distance = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1) - np.float32(2.0) * product
    fall: Floats = np.exp(-np.maximum(distance, np.float32(0.0)))
    return fall


def add_gaussian(graph: GraphBuilder, left: str, right: Floats, name: str) -> str:
    """The same as graph nodes, with `right` as a constant of this name."""
    landmarks = graph.floats(right, name)
    product = graph.op("MatMul", left, graph.op("Transpose", landmarks, perm=[1, 0]))
    lengths = graph.op("ReduceSumSquare", left, graph.ints([1]), keepdims=1)
    sums = graph.op("Add", lengths, graph.floats((right * right).sum(axis=1)))
    distance = graph.op("Sub", sums, graph.op("Mul", product, graph.floats(2.0)))
    return graph.op("Exp", graph.op("Neg", graph.op("Max", distance, graph.floats(0.0))))


def _add_row_sum(graph: GraphBuilder, value: str) -> str:
    return graph.op("ReduceSum", value, graph.ints([1]), keepdims=0)
