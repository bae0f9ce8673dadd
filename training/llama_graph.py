"""The forward pass of a Llama-family decoder as ONNX nodes, with weights in 32 or 8 bits.

Eight-bit weights are signed codes with one scale per 64 neighbours of a row. ONNX Runtime multiplies them by float32
activations (`MatMulNBits`), so that a score does not depend on its neighbours in a batch.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.llama_checkpoint import EMBEDDINGS, FINAL_NORM, LlamaShape, names
from training.onnx_graph import ORT_DOMAIN, GraphBuilder

Floats = NDArray[np.float32]

_BLOCK = 64


def rounded(weight: Floats) -> Floats:
    """A matrix as its 8-bit form says: what the graph multiplies with."""
    codes, scales = _codes(weight)
    return (codes.astype(np.float32) * scales[:, :, None]).reshape(weight.shape)


def is_matrix(name: str) -> bool:
    """True for the tensors that can be stored in 8 bits; the norms stay as they are."""
    return "norm" not in name


def add_last_state(
    graph: GraphBuilder,
    model: tuple[LlamaShape, dict[str, Floats]],
    input_ids: str,
    attention_mask: str,
    *,
    eight_bits: bool,
) -> str:
    """The hidden state that predicts the token after the last one, normed: float32 [batch, width].

    Args:
        model: shape and weights.
        input_ids, attention_mask: int64 values [batch, tokens], padded on the right.
        eight_bits: store the matrices as codes; they must be `rounded`.
    """
    shape, tensors = model
    width = tensors[EMBEDDINGS].shape[1]
    size = width // shape.heads
    multiply = _eight_bit_product(graph) if eight_bits else _product(graph)
    hidden = _embed(graph, tensors[EMBEDDINGS], input_ids, eight_bits=eight_bits)
    count = graph.op("Slice", graph.op("Shape", input_ids), graph.ints([1]), graph.ints([2]))
    rotate = _rotation(graph, shape, size, count)
    # Padding stands on the right, where no earlier token looks at it: causal attention needs no other mask.
    allowed = graph.op(
        "Trilu", graph.op("Expand", graph.floats(1.0), graph.op("Concat", count, count, axis=0)), upper=0
    )
    bias = graph.op("Mul", graph.op("Sub", allowed, graph.floats(1.0)), graph.floats(1e9))
    for layer in range(shape.layers):
        own = {short: tensors[name] for short, name in names(layer).items()}
        value = _norm(graph, hidden, own["attention_norm"], shape.epsilon)
        query = rotate(_heads(graph, multiply(value, own["query"]), shape.heads, size))
        key = _repeat(graph, rotate(_heads(graph, multiply(value, own["key"]), shape.groups, size)), shape, size)
        values = _repeat(graph, _heads(graph, multiply(value, own["value"]), shape.groups, size), shape, size)
        scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
        scores = graph.op("Add", graph.op("Mul", scores, graph.floats(size**-0.5)), bias)
        attended = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
        joined = graph.op("Reshape", graph.op("Transpose", attended, perm=[0, 2, 1, 3]), graph.ints([0, 0, width]))
        hidden = graph.op("Add", hidden, multiply(joined, own["output"]))
        value = _norm(graph, hidden, own["feed_norm"], shape.epsilon)
        gate = multiply(value, own["gate"])
        inner = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), multiply(value, own["up"]))
        hidden = graph.op("Add", hidden, multiply(inner, own["down"]))
    last = graph.op("Sub", graph.op("ReduceSum", attention_mask, graph.ints([1]), keepdims=1), graph.ints(1))
    # GatherND takes one token per row of the batch.
    state = graph.op("GatherND", hidden, last, batch_dims=1)
    return _norm(graph, state, tensors[FINAL_NORM], shape.epsilon)


def _product(graph: GraphBuilder) -> Callable[[str, Floats], str]:
    return lambda value, weight: graph.op("MatMul", value, graph.floats(weight.T, "w"))


def _eight_bit_product(graph: GraphBuilder) -> Callable[[str, Floats], str]:
    def multiply(value: str, weight: Floats) -> str:
        rows, columns = weight.shape
        codes, scales = _codes(weight)
        # The operator's codes are unsigned around 128, its scales one per block, row by row.
        stored = graph.constant((codes.astype(np.int16) + 128).astype(np.uint8), np.uint8, "codes")
        return graph.op(
            "MatMulNBits",
            value,
            stored,
            graph.floats(scales.reshape(-1), "scales"),
            domain=ORT_DOMAIN,
            K=columns,
            N=rows,
            bits=8,
            block_size=_BLOCK,
        )

    return multiply


def _codes(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[rows, blocks, 64] and [rows, blocks]."""
    blocks = weight.reshape(len(weight), -1, _BLOCK)
    scales = np.maximum(np.abs(blocks).max(axis=2), np.float32(1e-12)) / np.float32(127.0)
    return np.rint(blocks / scales[:, :, None]).astype(np.int8), scales.astype(np.float32)


def _embed(graph: GraphBuilder, table: Floats, input_ids: str, *, eight_bits: bool) -> str:
    if not eight_bits:
        return graph.op("Gather", graph.floats(table, "words"), input_ids)
    codes, scales = _codes(table)
    taken = graph.cast(graph.op("Gather", graph.constant(codes, np.int8, "words"), input_ids))
    scale = graph.op("Unsqueeze", graph.op("Gather", graph.floats(scales, "scales"), input_ids), graph.ints([3]))
    return graph.op("Reshape", graph.op("Mul", taken, scale), graph.ints([0, 0, table.shape[1]]))


def _norm(graph: GraphBuilder, value: str, scale: Floats, epsilon: float) -> str:
    square = graph.op("ReduceMean", graph.op("Mul", value, value), graph.ints([-1]), keepdims=1)
    root = graph.op("Sqrt", graph.op("Add", square, graph.floats(epsilon)))
    return graph.op("Mul", graph.op("Div", value, root), graph.floats(scale, "scale"))


def _rotation(graph: GraphBuilder, shape: LlamaShape, size: int, count: str) -> Callable[[str], str]:
    """Turns [batch, heads, tokens, size] by each token's position."""
    frequency = shape.base ** (-np.arange(0, size, 2) / size)
    angle = np.arange(shape.positions)[:, None] * np.concatenate([frequency, frequency])
    zero = graph.ints([0])
    cosine, sine = (
        graph.op("Slice", graph.floats(table, "rotation"), zero, count, zero)
        for table in (np.cos(angle), np.sin(angle))
    )
    half, end, axis = graph.ints([size // 2]), graph.ints([size]), graph.ints([3])

    def rotate(value: str) -> str:
        first = graph.op("Slice", value, zero, half, axis)
        second = graph.op("Slice", value, half, end, axis)
        crossed = graph.op("Concat", graph.op("Neg", second), first, axis=3)
        return graph.op("Add", graph.op("Mul", value, cosine), graph.op("Mul", crossed, sine))

    return rotate


def _heads(graph: GraphBuilder, value: str, heads: int, size: int) -> str:
    split = graph.op("Reshape", value, graph.ints([0, 0, heads, size]))
    return graph.op("Transpose", split, perm=[0, 2, 1, 3])


def _repeat(graph: GraphBuilder, value: str, shape: LlamaShape, size: int) -> str:
    """Each key and value head serves several query heads."""
    times = shape.heads // shape.groups
    if times == 1:
        return value
    spread = graph.op("Concat", *[graph.op("Unsqueeze", value, graph.ints([2]))] * times, axis=2)
    return graph.op("Reshape", spread, graph.ints([0, shape.heads, -1, size]))
