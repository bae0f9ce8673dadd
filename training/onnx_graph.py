"""A thin builder over `onnx.helper`: expressions in, one checked model out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""The first opset with `Gelu`; onnxruntime reads it since 1.17."""

IR_VERSION = 9
"""The IR that goes with opset 20."""


ORT_DOMAIN = "com.microsoft"
"""Operators that ONNX Runtime has beside the standard's."""


class GraphBuilder:
    """Collects nodes and constants of one graph. Every method that makes a value returns that value's name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._domains = {""}

    def input(self, name: str, shape: Sequence[str | int], element: int = TensorProto.INT64) -> str:
        """Declare a graph input; a text in `shape` names a free dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, element, list(shape)))
        return name

    def constant(self, value: ArrayLike, dtype: Any, name: str = "c") -> str:
        """Store an initialiser of `dtype`."""
        unique = f"{name}_{len(self._constants)}"
        # onnx wants C order: a transposed view would be copied as it lies in memory.
        array = np.array(value, dtype=dtype, order="C")
        self._constants[unique] = numpy_helper.from_array(array, unique)
        return unique

    def floats(self, value: ArrayLike, name: str = "f") -> str:
        """Store a float32 initialiser."""
        return self.constant(value, np.float32, name)

    def ints(self, value: ArrayLike, name: str = "i") -> str:
        """Store an int64 initialiser (axes, shapes, indices)."""
        return self.constant(value, np.int64, name)

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Apply an operator of one output; `domain` names those that are ONNX Runtime's own."""
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        self._domains.add(domain)
        return output

    def cast(self, value: str, element: int = TensorProto.FLOAT) -> str:
        """Change the element type."""
        return self.op("Cast", value, to=element)

    def build(self, outputs: dict[str, tuple[str, Sequence[str | int]]], name: str) -> onnx.ModelProto:
        """Close the graph.

        Args:
            outputs: public name -> (value, shape); all are float32.
            name: the graph's name.
        """
        infos = []
        for public, (value, shape) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [public]))
            infos.append(helper.make_tensor_value_info(public, TensorProto.FLOAT, list(shape)))
        graph = helper.make_graph(self._nodes, name, self._inputs, infos, list(self._constants.values()))
        opsets = [helper.make_opsetid(domain, 1 if domain else OPSET) for domain in sorted(self._domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "pointsman"
        onnx.checker.check_model(model)
        return model
