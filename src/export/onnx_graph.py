"""Building an ONNX graph node by node from a quantized model's tensors.

Graphs are written by hand rather than traced: the operators are few, what is dynamic is plain, and a linear can be
written in the form that holds its codes. Tensors are float32 while they are computed with; parameters that the
quantized model stores in float16 are stored so here, behind a cast that the runtime folds when it loads the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.export.base import Exportable

T = TypeVar("T")

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # the one of that opset: newer ones are unknown to older runtimes
MICROSOFT = "com.microsoft"  # operators that onnxruntime adds
_EPSILON = 1e-5  # of every LayerNorm in all families
_MASKED = float(np.finfo(np.float32).min)


class Graph:
    """A graph under construction. Tensors are named by strings, which every method takes and returns."""

    def __init__(self, model: Exportable) -> None:
        self.model = model
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._known: dict[Any, Any] = {}
        self._renamed: dict[str, str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declares an input; strings name dynamic sizes."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, tensor: str, kind: int, shape: Sequence[int | str]) -> None:
        """Gives a tensor that a node computes the name of an output; each has one at most."""
        assert tensor not in self._renamed
        self._renamed[tensor] = name
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        name = f"{kind}.{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=name, domain=domain, **attributes))
        return names

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make()`` returned the first time it was asked for under ``key``."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small constant; equal ones are stored once."""
        array = np.ascontiguousarray(value, dtype=dtype)
        key = (array.tobytes(), array.shape, str(array.dtype))
        return self.once(key, lambda: self.tensor(f"constant.{len(self._initializers)}", array))

    def tensor(self, name: str, array: np.ndarray) -> str:
        self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def parameter(self, name: str, *, transposed: bool = False) -> str:
        """A parameter that the quantized model keeps in float16, as float32."""

        def make() -> str:
            array = self.model.stored.leftovers[name].half().numpy()
            return self.op("Cast", self.tensor(name, array.T if transposed else array), to=TensorProto.FLOAT)

        return self.once((name, transposed), make)

    def rows(self, path: str) -> int:
        """Outputs of the linear at ``path``."""
        weight = self.model.stored.weights.get(path)
        return len(self.model.stored.leftovers[f"{path}.weight"]) if weight is None else weight.shape[0]

    def has(self, name: str) -> bool:
        return name in self.model.stored.leftovers

    def layer_norm(self, x: str, path: str) -> str:
        """The norm at ``path``, with or without a bias."""
        bias = [self.parameter(f"{path}.bias")] if self.has(f"{path}.bias") else []
        return self.op("LayerNormalization", x, self.parameter(f"{path}.weight"), *bias, epsilon=_EPSILON)

    def conv(self, x: str, path: str, *, stride: int, pads: tuple[int, int] = (0, 0)) -> str:
        """The convolution at ``path`` over the last axis of ``x`` [batch, channels, frames]; ``pads``: ends of it."""
        bias = [self.parameter(f"{path}.bias")] if self.has(f"{path}.bias") else []
        weight = self.parameter(f"{path}.weight")
        return self.op("Conv", x, weight, *bias, strides=[stride], pads=pads)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def size(self, x: str, axis: int) -> str:
        """Length of one axis, int64 [1]."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def span(self, start: str, stop: str) -> str:
        """``start, start + 1, ... stop - 1`` for int64 [1] ends, int64 [n]."""
        scalar = self.constant([])
        ends = [self.op("Reshape", end, scalar) for end in (start, stop)]
        return self.op("Range", *ends, self.constant(1))

    def bias_of(self, allowed: str) -> str:
        """A bool mask as what is added to attention scores: 0 where True, the least float where not."""
        kept, masked = self.constant(0.0, np.float32), self.constant(_MASKED, np.float32)
        return self.op("Where", allowed, kept, masked)

    def heads(self, x: str, count: int) -> str:
        """``x`` [batch, n, d] as [batch, heads, n, d / heads]."""
        split = self.op("Reshape", x, self.constant([0, 0, count, -1]))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, q: str, k: str, v: str, bias: str | None, head_dim: int) -> str:
        """Attention of ``q`` [batch, heads, n, h] to ``k``, ``v`` [batch, heads, m, h]: [batch, n, heads h]."""
        return self.attend(q, self.scaled_keys(k, head_dim), v, bias)

    def scaled_keys(self, k: str, head_dim: int) -> str:
        """``k`` [batch, heads, m, h] as :meth:`attend` takes it: with the scores' scale, [batch, heads, h, m]."""
        scaled = self.op("Mul", k, self.constant(head_dim**-0.5, np.float32))
        return self.op("Transpose", scaled, perm=[0, 1, 3, 2])

    def attend(self, q: str, scaled_keys: str, v: str, bias: str | None) -> str:
        """Attention to keys of :meth:`scaled_keys`: a product with one row reads them as fast as memory gives them."""
        scores = self.op("MatMul", q, scaled_keys)
        if bias is not None:
            scores = self.op("Add", scores, bias)
        return self.joined(self.op("MatMul", self.op("Softmax", scores, axis=-1), v))

    def joined(self, x: str) -> str:
        """The inverse of :meth:`heads`: ``x`` [batch, heads, n, h] as [batch, n, heads h]."""
        turned = self.op("Transpose", x, perm=[0, 2, 1, 3])
        return self.op("Reshape", turned, self.constant([0, 0, -1]))

    def finish(self, name: str) -> onnx.ModelProto:
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [self._renamed.get(each, each) for each in names]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._initializers.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edge-asr")
        onnx.checker.check_model(model)
        return model
