"""A BERT-family encoder: its checkpoint as it is published, and its forward pass as ONNX nodes.

The family is BERT (arXiv 1810.04805) with post-layer-norm: BERT itself, MiniLM, RoBERTa and XLM-RoBERTa, which differ
in where positions start to count.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from training.errors import TrainingError
from training.onnx_graph import GraphBuilder

Tensors = dict[str, NDArray[np.float32]]


class CheckpointError(TrainingError):
    """A folder holds no checkpoint that can be used. The message says what is missing or other than known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """What the weights do not tell.

    Attributes:
        layers: number of them.
        heads: attention heads per layer.
        epsilon: of the layer norms.
        positions: longest input in tokens.
        first_position: row of the position table that the first token takes.
    """

    layers: int
    heads: int
    epsilon: float
    positions: int
    first_position: int = 0


@dataclass(frozen=True, slots=True)
class BertCheckpoint:
    """An encoder.

    Attributes:
        shape: see there.
        tensors: float32 weights by their published name, without the family's prefix.
        tokenizer_json: a `tokenizers` file without padding or truncation.
        pad_id: fills up a batch.
    """

    shape: BertShape
    tensors: Tensors
    tokenizer_json: str
    pad_id: int

    @property
    def width(self) -> int:
        """Of a hidden state."""
        return int(self.tensors["embeddings.word_embeddings.weight"].shape[1])


def load(folder: Path) -> BertCheckpoint:
    """Read a checkpoint in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.

    Raises:
        CheckpointError: a file is missing, or the model is of another family.
    """
    config = read_json(folder / "config.json")
    family = config.get("model_type")
    if family not in ("bert", "roberta", "xlm-roberta"):
        raise CheckpointError(f"{folder} holds a {family!r} model: bert, roberta and xlm-roberta can be fine-tuned")
    if config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"{folder} has the activation {config['hidden_act']!r}: only gelu is known")
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no model.safetensors: save the model with safe_serialization=True")
    pad_id = int(config.get("pad_token_id", 0))
    first = 0 if family == "bert" else pad_id + 1
    shape = BertShape(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        epsilon=config.get("layer_norm_eps", 1e-12),
        positions=config["max_position_embeddings"] - first,
        first_position=first,
    )
    tensors = {
        name.removeprefix("bert.").removeprefix("roberta."): value.astype(np.float32)
        for name, value in load_file(folder / "model.safetensors").items()
    }
    missing = [name for name in names(shape) if name not in tensors]
    if missing:
        raise CheckpointError(f"{folder}/model.safetensors lacks {missing[0]} and {len(missing) - 1} more tensors")
    tokenizer = read_json(folder / "tokenizer.json")
    tokenizer["padding"] = tokenizer["truncation"] = None
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    return BertCheckpoint(shape, {name: tensors[name] for name in names(shape)}, text, pad_id)


def names(shape: BertShape) -> list[str]:
    """Every tensor that the forward pass reads."""
    parts = [f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")]
    parts += [f"embeddings.LayerNorm.{part}" for part in ("weight", "bias")]
    for layer in range(shape.layers):
        for module in _MODULES:
            parts += [f"encoder.layer.{layer}.{module}.{part}" for part in ("weight", "bias")]
    return parts


_MODULES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def add_encoder(
    graph: GraphBuilder,
    encoder: "tuple[BertShape, Tensors]",
    input_ids: str,
    attention_mask: str,
    layers: Sequence[int],
) -> list[str]:
    """Add the encoder to `graph`, up to the highest layer asked for.

    Args:
        encoder: shape and weights.
        input_ids, attention_mask: int64 values [batch, tokens].
        layers: which hidden states to return; 0 is the embedding layer's output.

    Returns:
        One value [batch, tokens, width] per entry of `layers`.
    """
    weights = _Weights(graph, *encoder)
    hidden = _embed(graph, weights, input_ids)
    states = [hidden]
    # 0 where a token stands, a number that exp() turns into exactly 0 where padding stands.
    mask = graph.cast(graph.op("Unsqueeze", attention_mask, graph.ints([1, 2])))
    bias = graph.op("Mul", graph.op("Sub", mask, graph.floats(1.0)), graph.floats(1e9))
    for layer in range(max(layers)):
        prefix = f"encoder.layer.{layer}"
        attended = _attend(graph, weights, prefix, hidden, bias)
        hidden = weights.norm(f"{prefix}.attention.output.LayerNorm", graph.op("Add", attended, hidden))
        inner = graph.op("Gelu", weights.dense(f"{prefix}.intermediate.dense", hidden))
        outer = weights.dense(f"{prefix}.output.dense", inner)
        hidden = weights.norm(f"{prefix}.output.LayerNorm", graph.op("Add", outer, hidden))
        states.append(hidden)
    return [states[layer] for layer in layers]


def add_mean_pool(graph: GraphBuilder, hidden: str, attention_mask: str) -> str:
    """Mean over real tokens: [batch, tokens, width] -> [batch, width]."""
    mask = graph.cast(graph.op("Unsqueeze", attention_mask, graph.ints([2])))
    total = graph.op("ReduceSum", graph.op("Mul", hidden, mask), graph.ints([1]), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", mask, graph.ints([1]), keepdims=0))


class _Weights:
    """Adds named weights to a graph in the forms that its layers use them."""

    def __init__(self, graph: GraphBuilder, shape: BertShape, tensors: Tensors) -> None:
        self._graph = graph
        self._tensors = tensors
        self.shape = shape

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._tensors[name]

    def dense(self, name: str, value: str) -> str:
        kernel = self._graph.floats(self.tensor(f"{name}.weight").T, "w")
        product = self._graph.op("MatMul", value, kernel)
        return self._graph.op("Add", product, self._graph.floats(self.tensor(f"{name}.bias"), "b"))

    def norm(self, name: str, value: str) -> str:
        scale = self._graph.floats(self.tensor(f"{name}.weight"), "scale")
        shift = self._graph.floats(self.tensor(f"{name}.bias"), "shift")
        return self._graph.op("LayerNormalization", value, scale, shift, epsilon=self.shape.epsilon)


def _embed(graph: GraphBuilder, weights: _Weights, input_ids: str) -> str:
    words = graph.op("Gather", graph.floats(weights.tensor("embeddings.word_embeddings.weight"), "words"), input_ids)
    # Segment 0 everywhere, so that its vector can be added to the positions once and for all.
    positions = (
        weights.tensor("embeddings.position_embeddings.weight")[weights.shape.first_position :]
        + weights.tensor("embeddings.token_type_embeddings.weight")[:1]
    )
    count = graph.op("Slice", graph.op("Shape", input_ids), graph.ints([1]), graph.ints([2]))
    rows = graph.op("Slice", graph.floats(positions, "positions"), graph.ints([0]), count, graph.ints([0]))
    return weights.norm("embeddings.LayerNorm", graph.op("Add", words, rows))


def _attend(graph: GraphBuilder, weights: _Weights, prefix: str, hidden: str, bias: str) -> str:
    heads = weights.shape.heads
    width = len(weights.tensor(f"{prefix}.attention.self.query.bias"))

    def split(name: str, order: list[int]) -> str:
        projected = weights.dense(f"{prefix}.attention.self.{name}", hidden)
        return graph.op(
            "Transpose", graph.op("Reshape", projected, graph.ints([0, 0, heads, width // heads])), perm=order
        )

    query = split("query", [0, 2, 1, 3])
    key = split("key", [0, 2, 3, 1])
    value = split("value", [0, 2, 1, 3])
    scaled = graph.op("Mul", graph.op("MatMul", query, key), graph.floats((width // heads) ** -0.5))
    shares = graph.op("Softmax", graph.op("Add", scaled, bias), axis=-1)
    merged = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    joined = graph.op("Reshape", merged, graph.ints([0, 0, width]))
    return weights.dense(f"{prefix}.attention.output.dense", joined)


def read_json(path: Path) -> dict[str, Any]:
    """Read one file of a checkpoint.

    Raises:
        CheckpointError: it is missing or no JSON.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: give a folder in the Hugging Face layout") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    return document
