"""How a quantized linear is written in ONNX: as codes, as codes with rounded inputs, or as float32 weights.

``codes``: onnxruntime's MatMulNBits, 4 or 8 bits in blocks of 32 (16) input columns that share a scale; codes of fewer
bits and larger groups fit without a change (:mod:`src.export.onnx_codes`). ``accuracy_level`` says
what products are computed in: float32 (1), or integers after rounding the inputs to 8 bits in the same blocks (4),
which is faster.
``int8_dynamic``: inputs are rounded as they come, one grid a token of at most 8 bits, and multiplied with the codes in
integers (MatMulInteger), with one scale per output channel. Weights that have at most 15 bits together with
the inputs are stored signed, whose products are three times as fast; 8 and 8 are not, as processors without VNNI would
add pairs of products in 16 bits, and cut them off. DynamicQuantizeLinear is not used: its one grid a tensor
would make a clip's result depend on which others share its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import TensorProto

from src.export import onnx_codes
from src.export.onnx_graph import Graph
from src.lowbit.granularity import QuantizedWeight

_PAIR_BITS: Final = 15  # 2 (2^a - 1) 2^(w - 1) is less than 2^15: the sum of two products fits 16 bits


@dataclass(frozen=True)
class OnnxForm:
    """How weights are written, and what cross-attention reads.

    Attributes:
        weights: as in the module docstring.
        accuracy_level: of MatMulNBits.
        cross_cache: ``float32`` or ``int8``, see :mod:`src.export.onnx_cross`.
    """

    weights: str
    accuracy_level: int
    cross_cache: str = "float32"

    @property
    def holds_codes(self) -> bool:
        """Whether the head may have codes in blocks."""
        return self.weights != "float32"


def linear(graph: Graph, x: str, path: str, form: OnnxForm) -> str:
    """The linear at ``path`` applied to ``x`` [..., in], in one of the forms of the module docstring."""
    weight = graph.model.stored.weights.get(path)
    if weight is not None and form.weights == "codes":
        return onnx_codes.product(graph, x, [path], [weight], form.accuracy_level)
    if weight is not None and form.weights == "int8_dynamic":
        product = _integers(graph, x, path, weight)
    else:
        product = graph.op("MatMul", x, _dense(graph, path))
    if not graph.has(f"{path}.bias"):
        return product
    return graph.op("Add", product, graph.parameter(f"{path}.bias"))


def _integers(graph: Graph, x: str, path: str, weight: QuantizedWeight) -> str:
    """``y = s_x s_w (x_q - z_x) (W_q - z_w)^T``, in integers but for the scales.

    ONNX Runtime knows no zero points by row, so theirs is taken off afterwards: ``z_x`` times the sum of each column.
    """
    codes, scale, zero = graph.once(("rounded", x), lambda: _rounded_tokens(graph, x))
    W, zeros = weight.codes.numpy().T, weight.zero.numpy()[:, 0]
    sums = (W.astype(np.int32).sum(axis=0) - len(W) * zeros.astype(np.int32)).astype(np.int32)
    if weight.spec.bits + graph.model.abits <= _PAIR_BITS:
        W, zeros = ((each.astype(np.int16) - weight.spec.middle_code).astype(np.int8) for each in (W, zeros))
    stored = graph.tensor(f"{path}.codes", W), graph.tensor(f"{path}.zero", zeros)
    product = graph.op("MatMulInteger", codes, stored[0], "", stored[1])
    shift = graph.op("Mul", zero, graph.tensor(f"{path}.sums", sums))
    steps = graph.op("Mul", scale, graph.tensor(f"{path}.scale", weight.scale.float().numpy()[:, 0]))
    return graph.op("Mul", graph.op("Cast", graph.op("Sub", product, shift), to=TensorProto.FLOAT), steps)


def _rounded_tokens(graph: Graph, x: str) -> tuple[str, str, str]:
    """Codes uint8 of ``x`` [..., in], scales float32 and zero points int32 [..., 1]: each row on its own grid.

    The arithmetic of :func:`src.quant.fake.fake_quantize_tokens`.
    """
    last, nothing = graph.constant([-1]), graph.constant(0.0, np.float32)
    most = graph.constant(float((1 << graph.model.abits) - 1), np.float32)
    low = graph.op("Min", graph.op("ReduceMin", x, last), nothing)
    high = graph.op("Max", graph.op("ReduceMax", x, last), nothing)
    step = graph.op("Div", graph.op("Sub", high, low), most)
    scale = graph.op("Max", step, graph.constant(np.finfo(np.float32).tiny, np.float32))
    zero = graph.op("Round", graph.op("Neg", graph.op("Div", low, scale)))
    shifted = graph.op("Add", graph.op("Round", graph.op("Div", x, scale)), zero)
    codes = graph.op("Cast", graph.op("Min", shifted, most), to=TensorProto.UINT8)
    return codes, scale, graph.op("Cast", zero, to=TensorProto.INT32)


def linears(graph: Graph, x: str, paths: Sequence[str], form: OnnxForm) -> list[str]:
    """The linears at ``paths``, each applied to ``x``: as one product where their weights can be put on one another.

    A decode step has one row, and products so small cost as much to start as to compute.
    """
    weights = [graph.model.stored.weights.get(path) for path in paths]
    held = [weight for weight in weights if weight is not None]
    if form.weights == "codes" and len(held) == len(paths) and onnx_codes.stackable(held):
        stacked = onnx_codes.product(graph, x, paths, held, form.accuracy_level)
    elif form.weights == "float32" or not held:
        dense = graph.op("Concat", *(_dense(graph, path) for path in paths), axis=1)
        stacked = graph.op("MatMul", x, dense)
        if any(graph.has(f"{path}.bias") for path in paths):
            stacked = graph.op("Add", stacked, onnx_codes.stacked_bias(graph, paths))
    else:
        return [linear(graph, x, path, form) for path in paths]
    return graph.ops("Split", stacked, outputs=len(paths), axis=-1, num_outputs=len(paths))


def projected(graph: Graph, x: str, path: str, heads: int, form: OnnxForm) -> tuple[str, str, str]:
    """Queries, keys and values of the attention at ``path``, by head."""
    q, k, v = (graph.heads(y, heads) for y in linears(graph, x, [f"{path}.{name}_proj" for name in "qkv"], form))
    return q, k, v


def _dense(graph: Graph, path: str) -> str:
    """The weight at ``path`` as float32 [in, out]."""
    weight = graph.model.stored.weights.get(path)
    if weight is None:
        return graph.parameter(f"{path}.weight", transposed=True)
    return graph.tensor(f"{path}.weight", weight.dequantize().numpy().T)


def embedded(graph: Graph, tokens: str, form: OnnxForm) -> str:
    """Rows of the token embedding for ``tokens`` [batch, new]: [batch, new, d]."""
    path = graph.model.graph.embedding
    weight = graph.model.stored.weights.get(path)
    if weight is not None and form.holds_codes:
        return onnx_codes.embedded(graph, tokens, path, weight)
    return graph.op("Gather", _table(graph, path), tokens)


def head(graph: Graph, hidden: str, form: OnnxForm) -> str:
    """Logits [..., vocabulary] from the embedding's rows, which both ends of the decoder share, or the head's own.

    Its input is not rounded unless the accuracy level asks for it, so that integer graphs have its codes in blocks too.
    """
    path = graph.model.head
    weight = graph.model.stored.weights.get(path)
    if weight is not None and form.holds_codes:
        return onnx_codes.product(graph, hidden, [path], [weight], form.accuracy_level)
    width, vocabulary = graph.model.config.hidden_size, graph.model.config.vocab_size
    flat = graph.op("Gemm", graph.op("Reshape", hidden, graph.constant([-1, width])), _table(graph, path), transB=1)
    sizes = graph.op("Shape", hidden, start=0, end=2)
    return graph.op("Reshape", flat, graph.op("Concat", sizes, graph.constant([vocabulary]), axis=0))


def _table(graph: Graph, path: str) -> str:
    """The embedding or the head as float32, dequantized where it has codes."""
    weight = graph.model.stored.weights.get(path)
    if weight is None:
        return graph.parameter(f"{path}.weight")
    return graph.once(("table", path), lambda: graph.tensor(f"{path}.weight", weight.dequantize().numpy()))
