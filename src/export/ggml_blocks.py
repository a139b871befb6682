"""GGML's blocks of 32 weights in a row, and when a grid of ours fits one without a change.

A block without offset holds integers ``q`` and one float16 ``d``: ``w = d q``. Our ``w = s (code - zero)`` is that
with ``d = s`` and ``q = code - zero``, exactly, wherever ``q`` fits: ``q4_0`` holds -8 .. 7, ``q5_0`` -16 .. 15,
``q8_0`` -128 .. 127. A symmetric grid of b bits needs -2^(b-1) .. 2^(b-1) - 1, one with zero points up to
+-(2^b - 1); so 4 bits fit ``q4_0`` when symmetric and ``q5_0`` when not, and 8 bits with zero points fit none.

A block with offset holds ``q >= 0``, ``d`` and a float16 ``m``: ``w = d q + m``, with ``q = code`` and ``m = -s zero``.
That product is rounded to float16, which moves a block by at most ``2^-11 s zero``: 0.0073 steps at 4 bits. Real zero
points fit these alone.

Sizes and order of the bytes: ``block_q4_0`` and its sisters in ggml-common.h of ggml (version 2 of its formats).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.lowbit.granularity import QuantizedWeight, WeightSpec

BLOCK = 32


@dataclass(frozen=True)
class BlockType:
    """One kind of block.

    Attributes:
        name: as GGML calls it.
        tensor_type: its number in the header of a tensor.
        file_type: its number in the header of a file whose matrices are of this kind.
        bits: width of an integer.
        offset: whether blocks have an offset ``m``.
    """

    name: str
    tensor_type: int
    file_type: int
    bits: int
    offset: bool

    @property
    def lowest(self) -> int:
        return 0 if self.offset else -(1 << (self.bits - 1))

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, its floats included."""
        return BLOCK * self.bits // 8 + 2 * (1 + self.offset)

    def holds(self, spec: WeightSpec) -> bool:
        """Whether every weight that ``spec`` allows keeps its codes."""
        if self.offset:
            return spec.bits <= self.bits
        needed = spec.middle_code if spec.symmetric else spec.max_code
        return needed <= (1 << (self.bits - 1)) - (0 if spec.symmetric else 1)


TYPES = {
    each.name: each
    for each in (
        BlockType("q4_0", 2, 2, 4, offset=False),
        BlockType("q4_1", 3, 3, 4, offset=True),
        BlockType("q5_0", 6, 8, 5, offset=False),
        BlockType("q5_1", 7, 9, 5, offset=True),
        BlockType("q8_0", 8, 7, 8, offset=False),
    )
}
EXACT = ("q4_0", "q5_0", "q8_0")  # without offset, smallest first


def encode(weight: QuantizedWeight, kind: BlockType) -> tuple[bytes, float]:
    """The rows of ``weight``, whose groups are made of whole blocks, as blocks of a kind that holds its grid.

    Returns:
        The bytes, and by how much of a step the rounding of offsets moved the weights at most.
    """
    rows, columns = weight.shape
    repeats = columns // weight.scale.shape[1] // BLOCK
    scale = weight.scale.float().numpy().repeat(repeats, axis=1)
    zero = weight.zero.float().numpy().repeat(repeats, axis=1)
    codes = weight.codes.numpy().reshape(rows, columns // BLOCK, BLOCK).astype(np.int16)
    d = scale.astype("<f2")
    if not kind.offset:
        return _blocks(kind, codes - zero[..., None].astype(np.int16), [d]), 0.0
    m = (-scale * zero).astype("<f2")
    moved = np.abs(m.astype(np.float32) + scale * zero) / scale
    return _blocks(kind, codes, [d, m]), float(moved.max())


def _blocks(kind: BlockType, q: np.ndarray, floats: list[np.ndarray]) -> bytes:
    """One block after the other: floats, then fifth bits, then integers ``q`` [rows, blocks, 32]."""
    parts = [part[..., None].view(np.uint8) for part in floats]
    if kind.bits == 8:
        parts.append(q.astype(np.int8).view(np.uint8))
    else:
        codes = (q - kind.lowest).astype(np.uint8)
        if kind.bits == 5:
            parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
        low = codes & 15
        parts.append((low[..., :16] | low[..., 16:] << 4).astype(np.uint8))
    return np.concatenate(parts, axis=-1).tobytes()
