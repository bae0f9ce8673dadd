"""The forward pass of a BERT-family encoder in torch, as a function of its named weights: what fine-tuning changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from training.bert_graph import BertShape

Tensor = Any
"""A torch.Tensor; torch is absent where types are checked."""


def encode(weights: Mapping[str, Tensor], shape: BertShape, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The last hidden state, [batch, tokens, width].

    Args:
        weights: by the names of `bert_graph.names`.
        shape: of the encoder.
        input_ids, attention_mask: int64 [batch, tokens], padded on the right.
    """

    def dense(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, value: Tensor) -> Tensor:
        return functional.layer_norm(
            value, value.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], shape.epsilon
        )

    batch, tokens = input_ids.shape
    positions = torch.arange(shape.first_position, shape.first_position + tokens)
    hidden = (
        weights["embeddings.word_embeddings.weight"][input_ids]
        + weights["embeddings.position_embeddings.weight"][positions]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm("embeddings.LayerNorm", hidden)
    bias = (attention_mask[:, None, None, :].to(hidden.dtype) - 1.0) * 1e9
    width = hidden.shape[-1]
    for layer in range(shape.layers):
        prefix = f"encoder.layer.{layer}"
        query, key, value = (
            dense(f"{prefix}.attention.self.{part}", hidden).view(batch, tokens, shape.heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) * (width // shape.heads) ** -0.5 + bias
        attended = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
        attended = dense(f"{prefix}.attention.output.dense", attended)
        hidden = norm(f"{prefix}.attention.output.LayerNorm", attended + hidden)
        inner = functional.gelu(dense(f"{prefix}.intermediate.dense", hidden))
        hidden = norm(f"{prefix}.output.LayerNorm", dense(f"{prefix}.output.dense", inner) + hidden)
    return hidden


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over real tokens, [batch, width]."""
    mask = attention_mask[:, :, None].to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
