"""What a decoder block's cross-attention reads of the encoder's frames: floats, or 8-bit integers.

Every step reads all of it, so once weights have 4 bits it is most of what a step of a small Whisper moves. Tensors are
named ``cross_*``; a block's have its number behind a dot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
from onnx import TensorProto

from src.export.onnx_graph import Graph

OnnxShape = list[int | str]

_GOLDEN: Final = 0.6180339887498949
_MOST: Final = 127  # a query's largest code, around 128
_TINY: Final = float(np.finfo(np.float32).tiny)


class Cross(Protocol):
    """How frames are kept between encoder and decoder, and attended to."""

    def shapes(self, head_dim: int, frames: int | str) -> dict[str, tuple[int, OnnxShape]]:
        """Type and shape behind [batch, heads] of each tensor of a block, by name."""

    def stored(self, graph: Graph, keys: str, values: str, mask: str | None) -> dict[str, str]:
        """The tensors, by name, of ``keys`` and ``values`` [batch, heads, frames, h].

        ``mask``: bool [batch, 1, 1, frames], which frames are not padding; None where all are.
        """

    def attend(self, graph: Graph, q: str, held: Mapping[str, str], bias: str | None) -> str:
        """Attention of ``q`` [batch, heads, n, h] to what :meth:`stored` made: [batch, n, heads h].

        ``bias`` [batch, 1, 1, frames] is added to the scores.
        """

    def read_bytes(self, heads: int, head_dim: int, frames: int) -> int:
        """Bytes that a block's cross-attention reads in one step."""


class FloatCross:
    """Keys with the scores' scale and transposed, so that a product with one row reads along memory; plain values."""

    def shapes(self, head_dim: int, frames: int | str) -> dict[str, tuple[int, OnnxShape]]:
        kind = TensorProto.FLOAT
        return {"cross_keys": (kind, [head_dim, frames]), "cross_values": (kind, [frames, head_dim])}

    def stored(self, graph: Graph, keys: str, values: str, mask: str | None) -> dict[str, str]:  # noqa: ARG002
        return {"cross_keys": graph.scaled_keys(keys, graph.model.graph.head_dim), "cross_values": values}

    def attend(self, graph: Graph, q: str, held: Mapping[str, str], bias: str | None) -> str:
        return graph.attend(q, held["cross_keys"], held["cross_values"], bias)

    def read_bytes(self, heads: int, head_dim: int, frames: int) -> int:
        return 4 * 2 * heads * head_dim * frames


class IntegerCross:
    """Keys and values as integers with one scale a channel, multiplied with queries and weights of 8 bits.

    onnxruntime has a kernel for one row of uint8 times int8 without zero points, which reads the integers as they are.
    Where processors lack VNNI it sums pairs of products in 16 bits, so that of the two factors one may have 8 bits and
    the other 7: the cache has 7. What this makes of the arithmetic:

    - keys are on a grid a channel (as in KIVI, arXiv 2402.02750), from its least to its greatest; zero points add the
      same to all scores of a query, which softmax takes off again, and are dropped (cf. SageAttention, 2410.02367);
    - queries take the keys' scales first, are rounded to -127 .. 127 a head and stored with 128 added; ``sums``, 128
      times the sum of a frame's keys, is taken off the scores;
    - softmax's numerators, at most 1, are rounded to 0 .. 255 after adding a fixed sequence of mean zero, evenly spread
      over half a step to both sides. Without it, many weak frames would all be rounded to nothing, and their sum with
      them. The denominator is the sum of what was rounded.
    """

    def shapes(self, head_dim: int, frames: int | str) -> dict[str, tuple[int, OnnxShape]]:
        return {
            "cross_keys": (TensorProto.INT8, [head_dim, frames]),
            "cross_key_scales": (TensorProto.FLOAT, [1, head_dim]),
            "cross_key_sums": (TensorProto.FLOAT, [1, frames]),
            "cross_values": (TensorProto.INT8, [frames, head_dim]),
            "cross_value_scales": (TensorProto.FLOAT, [1, head_dim]),
        }

    def stored(self, graph: Graph, keys: str, values: str, mask: str | None) -> dict[str, str]:
        """See the protocol. Grids hold zero, and padding counts as zero, so that it changes none."""
        if mask is not None:
            column = graph.op("Transpose", mask, perm=[0, 1, 3, 2])
            keys, values = (graph.op("Where", column, each, _float(graph, 0.0)) for each in (keys, values))
        key_codes, key_scales = _rounded_keys(graph, graph.op("Transpose", keys, perm=[0, 1, 3, 2]))
        value_codes, value_scales = _rounded_values(graph, values)
        offset = graph.constant(np.full((1, graph.model.graph.head_dim), 128), np.uint8)
        sums = graph.op("Cast", graph.op("MatMulInteger", offset, key_codes), to=TensorProto.FLOAT)
        made = (key_codes, key_scales, sums, value_codes, value_scales)
        return dict(zip(self.shapes(0, 0), made, strict=True))

    def attend(self, graph: Graph, q: str, held: Mapping[str, str], bias: str | None) -> str:
        codes, step = _rounded_queries(graph, graph.op("Mul", q, held["cross_key_scales"]))
        scores = graph.op("Cast", graph.op("MatMulInteger", codes, held["cross_keys"]), to=TensorProto.FLOAT)
        scores = graph.op("Mul", graph.op("Sub", scores, held["cross_key_sums"]), step)
        if bias is not None:
            scores = graph.op("Add", scores, bias)
        weights = _rounded_weights(graph, scores)
        mixed = graph.op("Cast", graph.op("MatMulInteger", weights, held["cross_values"]), to=TensorProto.FLOAT)
        total = graph.op("ReduceSum", graph.op("Cast", weights, to=TensorProto.FLOAT), graph.constant([-1]))
        return graph.joined(graph.op("Mul", graph.op("Div", mixed, total), held["cross_value_scales"]))

    def read_bytes(self, heads: int, head_dim: int, frames: int) -> int:
        return heads * (2 * head_dim * frames + 4 * frames + 2 * 4 * head_dim)


CROSSES: Final[Mapping[str, Cross]] = {"float32": FloatCross(), "int8": IntegerCross()}  # by ``export.cross_cache``


def _rounded_keys(graph: Graph, keys: str) -> tuple[str, str]:
    """Codes int8 of ``keys`` [batch, heads, h, frames], -64 .. 64, and scales [batch, heads, 1, h].

    The scales have the scores' and what :func:`_rounded_queries` leaves to them.
    """
    rows, axis, zero = _flat(graph, keys, kept=1), graph.constant([1]), _float(graph, 0.0)
    low = graph.op("Min", graph.op("ReduceMin", rows, axis, keepdims=0), zero)
    high = graph.op("Max", graph.op("ReduceMax", rows, axis, keepdims=0), zero)
    scale = graph.op("Max", graph.op("Mul", graph.op("Sub", high, low), _float(graph, 1 / 127)), _float(graph, _TINY))
    offset = graph.op("Round", graph.op("Sub", _float(graph, -64.0), graph.op("Div", low, scale)))
    offset = graph.op("Cast", offset, to=TensorProto.INT8)
    codes = graph.op("QuantizeLinear", rows, scale, offset, axis=0)
    scaled = graph.op("Mul", scale, _float(graph, graph.model.graph.head_dim**-0.5 / _MOST))
    return graph.op("Reshape", codes, graph.op("Shape", keys)), _channels(graph, scaled, keys)


def _rounded_values(graph: Graph, values: str) -> tuple[str, str]:
    """Codes int8 of ``values`` [batch, heads, frames, h], -64 .. 64, and scales [batch, heads, 1, h]."""
    parts = _flat(graph, values, kept=2)
    top = graph.op("ReduceMax", graph.op("Abs", parts), graph.constant([1]))
    scale = graph.op("Max", graph.op("Mul", top, _float(graph, 1 / 64)), _float(graph, _TINY))
    codes = graph.op("QuantizeLinear", graph.op("Div", parts, scale), _float(graph, 1.0), graph.constant(0, np.int8))
    return graph.op("Reshape", codes, graph.op("Shape", values)), _channels(graph, scale, values)


def _flat(graph: Graph, x: str, *, kept: int) -> str:
    """``x`` with all but its last ``kept`` axes as one.

    Also keeps onnxruntime from moving the transposition before it behind a reduction, which is then ten times slower.
    """
    last = graph.op("Shape", x, start=-kept)
    return graph.op("Reshape", x, graph.op("Concat", graph.constant([-1]), last, axis=0))


def _channels(graph: Graph, scales: str, like: str) -> str:
    """``scales``, one a channel, as [batch, heads, 1, h] with batch and heads of ``like``."""
    outer = graph.op("Shape", like, start=0, end=2)
    return graph.op("Reshape", scales, graph.op("Concat", outer, graph.constant([1, -1]), axis=0))


def _rounded_queries(graph: Graph, q: str) -> tuple[str, str]:
    """Codes uint8 of ``q`` [batch, heads, n, h], 1 .. 255 around 128; 127 times their scales [batch, heads, n, 1]."""
    top = graph.op("ReduceMax", graph.op("Abs", q), graph.constant([-1]))
    top = graph.op("Max", top, _float(graph, _TINY))
    step, middle = _float(graph, 1 / _MOST), graph.constant(128, np.uint8)
    return graph.op("QuantizeLinear", graph.op("Div", q, top), step, middle), top


def _rounded_weights(graph: Graph, scores: str) -> str:
    """Softmax's numerators of ``scores`` [batch, heads, n, frames] as uint8; the class says what is added first."""
    exponents = graph.op("Sub", scores, graph.op("ReduceMax", scores, graph.constant([-1])))
    spread = graph.once("spread", lambda: _spread(graph, graph.size(scores, 3)))
    step = _float(graph, 1 / 255)
    numerators = graph.op("Add", graph.op("Exp", exponents), spread)
    return graph.op("QuantizeLinear", numerators, step, graph.constant(0, np.uint8))


def _spread(graph: Graph, frames: str) -> str:
    """Fractional parts of the golden ratio's multiples, moved to -0.5 .. 0.5 and in units of 255: float32 [frames]."""
    numbers = graph.op("Cast", graph.span(graph.constant([0]), frames), to=TensorProto.FLOAT)
    multiples = graph.op("Mul", numbers, _float(graph, _GOLDEN))
    parts = graph.op("Sub", multiples, graph.op("Floor", multiples))
    return graph.op("Mul", graph.op("Sub", parts, _float(graph, 0.5)), _float(graph, 1 / 255))


def _float(graph: Graph, value: float) -> str:
    return graph.constant(value, np.float32)
