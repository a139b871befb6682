"""Codes in onnxruntime's blocks: MatMulNBits for linears and the head, GatherBlockQuantized for the embedding.

Blocks are 32 (16) input columns that share a scale. Codes of fewer than 4 or 8 bits and larger groups fit without a
change: scales and zero points are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from src.export.onnx_graph import MICROSOFT, Graph
from src.lowbit.granularity import QuantizedWeight, WeightSpec

BLOCKS = (32, 16)  # what MatMulNBits takes and groups may be made of; larger ones are no faster
WIDTHS = (4, 8)  # those the CPU kernels are made for
FLOAT_LEVEL = 1  # MatMulNBits's accuracy_level of float32 products
_SCALE_BYTES = 4


def block_size(group: int) -> int | None:
    """The largest block that groups of ``group`` columns are made of; None where there is none."""
    return next((block for block in BLOCKS if group % block == 0), None)


@dataclass(frozen=True, eq=False)
class CodeBlocks:
    """One weight [rows, columns] as the operators take it.

    Attributes:
        bits: of a stored code, 4 or 8.
        size: columns of a block.
        codes: uint8 [rows, columns bits / 8].
        scale: float32 [rows, blocks].
        zero: float32 [rows, blocks], or uint8 [rows, packed blocks]. None: the middle code everywhere.
    """

    bits: int
    size: int
    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None

    @classmethod
    def of(cls, weight: QuantizedWeight) -> CodeBlocks:
        """The blocks of ``weight``, whose groups are made of whole ones."""
        columns = weight.shape[1]
        bits = next(width for width in WIDTHS if weight.spec.bits <= width)
        size = block_size(weight.spec.columns_per_group(columns))
        assert size is not None, "refused before"
        repeats = columns // size // weight.scale.shape[1]
        scale = weight.scale.float().numpy().repeat(repeats, axis=1)
        zero = weight.zero.numpy().repeat(repeats, axis=1)
        if zero.dtype == np.float16:
            return cls(bits, size, packed(weight.codes.numpy(), bits), scale, zero.astype(np.float32))
        centred = (zero == 1 << (bits - 1)).all()
        return cls(bits, size, packed(weight.codes.numpy(), bits), scale, None if centred else packed(zero, bits))

    @property
    def zeros(self) -> np.ndarray:
        """``zero``, the middle codes written out."""
        if self.zero is not None:
            return self.zero
        return packed(np.full(self.scale.shape, 1 << (self.bits - 1), np.uint8), self.bits)


def blocked_bytes(rows: int, columns: int, spec: WeightSpec) -> int:
    """Bytes of :class:`CodeBlocks` of a weight with integer zero points."""
    bits = next(width for width in WIDTHS if spec.bits <= width)
    size = block_size(spec.columns_per_group(columns))
    assert size is not None, "refused before"
    count = columns // size
    centred = spec.symmetric and spec.bits == bits
    return rows * (columns * bits // 8 + _SCALE_BYTES * count + (0 if centred else -(-count * bits // 8)))


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Uint8 codes with two to a byte, the first in the low half, at 4 bits; an odd last one alone."""
    if bits == WIDTHS[-1]:
        return codes
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    halves: np.ndarray = even[..., 0::2] | even[..., 1::2] << bits
    return halves


def stackable(weights: Sequence[QuantizedWeight]) -> bool:
    """Whether weights of the same inputs can be rows of one product: the same grids and order of columns."""
    first = weights[0]
    alike = all(each.spec == first.spec and each.zero.dtype == first.zero.dtype for each in weights)
    return alike and all(each.perm is None for each in weights)


def product(graph: Graph, x: str, paths: Sequence[str], weights: Sequence[QuantizedWeight], level: int) -> str:
    """``x`` [..., in] times the weights at ``paths``, one under the other, with biases; ``level``: accuracy_level."""
    name, parts = "+".join(paths), [CodeBlocks.of(weight) for weight in weights]
    columns, bits, size = weights[0].shape[1], parts[0].bits, parts[0].size
    codes = np.concatenate([part.codes for part in parts])
    inputs = [
        graph.tensor(f"{name}.codes", codes.reshape(len(codes), columns // size, -1)),
        graph.tensor(f"{name}.scale", np.concatenate([part.scale for part in parts]).reshape(-1)),
    ]
    if any(part.zero is not None for part in parts):
        zero = np.concatenate([part.zeros for part in parts])
        inputs.append(graph.tensor(f"{name}.zero", zero if zero.dtype == np.float32 else zero.reshape(-1)))
    perm = weights[0].perm
    if perm is not None:
        x = graph.op("Gather", x, graph.tensor(f"{name}.order", perm.numpy()), axis=-1)
    if bits == WIDTHS[-1] and level == FLOAT_LEVEL:
        return _dequantized_product(graph, x, paths, inputs, (len(codes), columns, columns // size))
    if any(graph.has(f"{path}.bias") for path in paths):
        absent = [""] * (4 - len(inputs))  # zero points where they are the middle code, and group indices
        inputs += [*absent, stacked_bias(graph, paths)]
    sizes = {"K": columns, "N": len(codes), "bits": bits, "block_size": size}
    return graph.op("MatMulNBits", x, *inputs, domain=MICROSOFT, accuracy_level=level, **sizes)


def _dequantized_product(graph: Graph, x: str, paths: Sequence[str], stored: list[str], sizes: Sequence[int]) -> str:
    """As :func:`product` of 8-bit codes in float32, with a weight that the runtime dequantizes when it loads the file.

    MatMulNBits has no kernel for that: with one row it dequantizes at every step, which takes ten times as long.
    """
    rows, columns, blocks = sizes
    codes, scale, *zero = stored
    by_block = graph.constant([rows, blocks, 1])
    if zero:
        zeros = graph.op("Reshape", graph.op("Cast", zero[0], to=TensorProto.FLOAT), by_block)
    else:
        zeros = graph.constant(1 << (WIDTHS[-1] - 1), np.float32)
    steps = graph.op("Sub", graph.op("Cast", codes, to=TensorProto.FLOAT), zeros)
    blocked = graph.op("Mul", steps, graph.op("Reshape", scale, by_block))
    dense = graph.op("Transpose", graph.op("Reshape", blocked, graph.constant([rows, columns])), perm=[1, 0])
    made = graph.op("MatMul", x, dense)
    biased = any(graph.has(f"{path}.bias") for path in paths)
    return graph.op("Add", made, stacked_bias(graph, paths)) if biased else made


def stacked_bias(graph: Graph, paths: Sequence[str]) -> str:
    """Biases of the linears at ``paths`` behind one another, zeros where one has none."""

    def bias(path: str) -> str:
        if graph.has(f"{path}.bias"):
            return graph.parameter(f"{path}.bias")
        return graph.constant(np.zeros(graph.rows(path)), np.float32)

    biases = [bias(path) for path in paths]
    return biases[0] if len(biases) == 1 else graph.op("Concat", *biases, axis=0)


def embedded(graph: Graph, tokens: str, path: str, weight: QuantizedWeight) -> str:
    """Rows of the embedding at ``path``, from the tensors that :func:`product` stores for the head."""
    blocks, (rows, columns) = CodeBlocks.of(weight), weight.shape
    count = columns // blocks.size
    if blocks.zero is None:
        zero = graph.tensor(f"{path}.middle", blocks.zeros)
    else:
        zero = graph.op("Reshape", graph.tensor(f"{path}.zero", blocks.zero.reshape(-1)), graph.constant([rows, -1]))
    stored = graph.tensor(f"{path}.codes", blocks.codes.reshape(rows, count, -1))
    codes = graph.op("Reshape", stored, graph.constant([rows, -1]))
    scale = graph.op("Reshape", graph.tensor(f"{path}.scale", blocks.scale.reshape(-1)), graph.constant([rows, count]))
    sizes = {"bits": blocks.bits, "block_size": blocks.size, "gather_axis": 0, "quantize_axis": 1}
    return graph.op("GatherBlockQuantized", codes, tokens, scale, zero, domain=MICROSOFT, **sizes)
