"""Tiny random checkpoints in the Hugging Face layout, made at test time."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from training import bert_graph, llama_checkpoint
from training.bert_graph import BertShape

WIDTH, INNER, LAYERS, HEADS, GROUPS = 64, 128, 2, 4, 2


def bert(folder: Path, *, family: str = "bert", seed: int = 0) -> Path:
    """A BERT or RoBERTa of two layers over the bytes of a text."""
    tokenizer = _bytes(["<pad>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    shape = BertShape(layers=LAYERS, heads=HEADS, epsilon=1e-5, positions=0)
    sizes = {"word": tokenizer.get_vocab_size(), "position": 130, "token_type": 1}
    generator = np.random.default_rng(seed)
    tensors = {}
    for name in bert_graph.names(shape):
        rows, columns = _bert_size(name, sizes)
        value = generator.normal(scale=0.3 / np.sqrt(columns or 1), size=(rows, columns) if columns else (rows,))
        if "LayerNorm.weight" in name:
            value += 1.0
        tensors[f"{family.removeprefix('xlm-')}.{name}"] = value.astype(np.float32)
    config = {
        "model_type": family,
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 130,
        "pad_token_id": 0 if family == "bert" else 1,
    }
    return _write(folder, config, tensors, tokenizer)


def llama(folder: Path, *, seed: int = 0) -> Path:
    """A Llama of two layers with shared keys and an output layer of its own."""
    tokenizer = _bytes(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    generator = np.random.default_rng(seed)
    size = WIDTH // HEADS
    shapes = {
        "query": (WIDTH, WIDTH),
        "key": (GROUPS * size, WIDTH),
        "value": (GROUPS * size, WIDTH),
        "output": (WIDTH, WIDTH),
        "gate": (INNER, WIDTH),
        "up": (INNER, WIDTH),
        "down": (WIDTH, INNER),
    }
    tensors = {
        llama_checkpoint.EMBEDDINGS: generator.normal(size=(tokenizer.get_vocab_size(), WIDTH)),
        llama_checkpoint.OUTPUT: generator.normal(size=(tokenizer.get_vocab_size(), WIDTH)),
        llama_checkpoint.FINAL_NORM: np.ones(WIDTH),
    }
    for layer in range(LAYERS):
        for short, name in llama_checkpoint.names(layer).items():
            shape = shapes.get(short)
            tensors[name] = np.ones(WIDTH) if shape is None else generator.normal(scale=shape[1] ** -0.5, size=shape)
    config = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    return _write(folder, config, {name: value.astype(np.float32) for name, value in tensors.items()}, tokenizer)


def _bert_size(name: str, sizes: dict[str, int]) -> tuple[int, int]:
    """Rows and columns, 0 columns for a vector."""
    if "_embeddings" in name:
        return sizes[name.removeprefix("embeddings.").removesuffix("_embeddings.weight")], WIDTH
    wide = "intermediate" in name
    if name.endswith("bias") or "LayerNorm" in name:
        return (INNER if wide else WIDTH), 0
    return (INNER if wide else WIDTH), (INNER if ".output.dense" in name and "attention" not in name else WIDTH)


def _bytes(special: list[str]) -> Tokenizer:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _write(folder: Path, config: dict[str, object], tensors: dict[str, np.ndarray], tokenizer: Tokenizer) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
