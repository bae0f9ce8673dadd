"""The forward pass of a Llama-family decoder in torch, as a function of its named weights: what fine-tuning changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from training.llama_checkpoint import EMBEDDINGS, FINAL_NORM, LlamaShape, names

Tensor = Any
"""A torch.Tensor; torch is absent where types are checked."""


def last_state(weights: Mapping[str, Tensor], shape: LlamaShape, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The hidden state that predicts the token after the last one, normed: [batch, width].

    Padding stands on the right, where no earlier token looks at it: causal attention needs no other mask.
    """
    hidden = functional.embedding(input_ids, weights[EMBEDDINGS])
    return last_of(weights, shape, layers(weights, shape, hidden, range(shape.layers)), attention_mask)


def last_of(weights: Mapping[str, Tensor], shape: LlamaShape, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Of the top layer's states [batch, tokens, width] that of each row's last token, normed: [batch, width]."""
    last = attention_mask.sum(dim=1) - 1
    return norm(hidden[torch.arange(len(hidden)), last], weights[FINAL_NORM], shape.epsilon)


def layers(weights: Mapping[str, Tensor], shape: LlamaShape, hidden: Tensor, numbers: range) -> Tensor:
    """Hidden states after these layers: [batch, tokens, width] before and after."""
    batch, tokens, width = hidden.shape
    size = width // shape.heads
    cosine, sine = rotations(shape, size, tokens)
    for layer in numbers:
        own = {short: weights[name] for short, name in names(layer).items()}
        value = norm(hidden, own["attention_norm"], shape.epsilon)
        query, key, values = (
            functional.linear(value, own[part]).view(batch, tokens, heads, size).transpose(1, 2)
            for part, heads in (("query", shape.heads), ("key", shape.groups), ("value", shape.groups))
        )
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        key, values = (each.repeat_interleave(shape.heads // shape.groups, dim=1) for each in (key, values))
        attended = functional.scaled_dot_product_attention(query, key, values, is_causal=True)
        hidden = hidden + functional.linear(attended.transpose(1, 2).reshape(batch, tokens, width), own["output"])
        value = norm(hidden, own["feed_norm"], shape.epsilon)
        inner = functional.silu(functional.linear(value, own["gate"])) * functional.linear(value, own["up"])
        hidden = hidden + functional.linear(inner, own["down"])
    return hidden


def norm(value: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """Divide by the root of the mean square."""
    return value * torch.rsqrt(value.pow(2).mean(dim=-1, keepdim=True) + epsilon) * scale


def rotations(shape: LlamaShape, size: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, [tokens, size], each half of a head alike."""
    frequency = shape.base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequency
    both = torch.cat([angle, angle], dim=1)
    return both.cos().float(), both.sin().float()


def rotate(value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn [batch, heads, tokens, size] by each token's position."""
    first, second = value.chunk(2, dim=-1)
    return value * cosine + torch.cat([-second, first], dim=-1) * sine
