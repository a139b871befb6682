"""What a quantized weight is: its specification, its codes on their grids, and what stays at 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.lowbit.double_quantization import QuantizedStatistics
from src.lowbit.outliers import DenseColumns, SparseOutliers

PER_CHANNEL = -1


@dataclass(frozen=True)
class WeightSpec:
    """How the weight of one linear is quantized.

    Attributes:
        bits: width of a code, 2 to 8.
        group_size: consecutive input columns that share a scale; -1 is one group per output channel.
        symmetric: whether the zero point is the grid's middle code, ``2^(bits - 1)``, instead of a searched one.
    """

    bits: int
    group_size: int
    symmetric: bool

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"weight codes have 2 to 8 bits, not {self.bits}")
        if self.group_size != PER_CHANNEL and self.group_size < 1:
            raise ValueError(f"a group size is positive or -1, not {self.group_size}")

    @property
    def max_code(self) -> int:
        """Largest code, ``2^bits - 1``; the smallest is 0."""
        return (1 << self.bits) - 1

    @property
    def middle_code(self) -> int:
        """Zero point of every symmetric grid, ``2^(bits - 1)``."""
        return 1 << (self.bits - 1)

    def columns_per_group(self, in_features: int) -> int:
        """Columns that share a scale in a weight of ``in_features`` columns.

        Raises:
            ValueError: the group size does not divide ``in_features``.
        """
        size = in_features if self.group_size == PER_CHANNEL else self.group_size
        if in_features % size:
            raise ValueError(f"group size {size} does not divide {in_features} columns")
        return size

    def stored_bytes(self, out_features: int, in_features: int, *, real_zeros: bool = False) -> int:
        """Bytes of a packed weight without a column order, quantized statistics or 16-bit weights.

        Raises:
            ValueError: the group size does not divide ``in_features``.
        """
        grids = out_features * (in_features // self.columns_per_group(in_features))
        zeros = 2 * grids if real_zeros else 0 if self.symmetric else -(-grids * self.bits // 8)
        return out_features * -(-in_features * self.bits // 8) + 2 * grids + zeros


@dataclass(eq=False)
class QuantizedWeight:
    """One linear's weight on an integer grid: ``W = scale (code - zero)``, but for what stays at 16 bits.

    Attributes:
        codes: uint8 [out, in], each in ``0 .. 2^bits - 1``; not stored where ``dense`` holds the column.
        scale: float16 [out, groups] (float32 where a caller asked for unrounded scales).
        zero: [out, groups]: uint8, a code, or float16, any real number; always the middle code where the spec is
            symmetric and the type uint8.
        spec: the specification the codes follow.
        perm: int64 [in], or None. Stored column ``j`` is column ``perm[j]`` of the weight; groups are consecutive in
            the stored order. None means the original order.
        statistics: what ``scale`` and ``zero`` are stored as, where they are quantized themselves.
        sparse: single weights at 16 bits.
        dense: whole columns at 16 bits; the inputs they are multiplied with are not quantized either.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    spec: WeightSpec
    perm: Tensor | None = None
    statistics: QuantizedStatistics | None = None
    sparse: SparseOutliers | None = None
    dense: DenseColumns | None = None

    @classmethod
    def joined(cls, parts: Sequence[QuantizedWeight]) -> QuantizedWeight:
        """The weight whose output channels are those of ``parts``, on one specification, one part after the other.

        Raises:
            ValueError: their columns are stored in different orders, or different ones at 16 bits, or a grid of
                quantized statistics would end where a part does.
        """
        first, *others = parts
        sparse = [each.sparse for each in parts if each.sparse]
        dense = [each.dense for each in parts if each.dense]
        statistics = [each.statistics for each in parts if each.statistics]
        if not all(_same(each.perm, first.perm) for each in others):
            raise ValueError("the columns of one weight have one order")
        codes, scale, zero = (torch.cat([getattr(each, name) for each in parts]) for name in ("codes", "scale", "zero"))
        return cls(
            codes,
            scale,
            zero,
            first.spec,
            first.perm,
            QuantizedStatistics.joined(statistics) if statistics else None,
            SparseOutliers.joined(sparse) if sparse else None,
            DenseColumns.joined(dense) if dense else None,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def exact_inputs(self) -> Tensor | None:
        """Int64 indices [k] of the inputs that stay at 16 bits, or None."""
        return None if self.dense is None else self.dense.columns.long()

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form (:func:`src.lowbit.pack.pack_weight`): codes, grids, order and 16-bit weights."""
        rows, columns = self.shape
        packed = columns - (0 if self.dense is None else len(self.dense.columns))
        codes = rows * (-(-packed * self.spec.bits // 8))
        order = 0 if self.perm is None else 4 * columns
        return codes + self._grid_bytes + order + sum(part.nbytes for part in (self.sparse, self.dense) if part)

    @property
    def _grid_bytes(self) -> int:
        if self.statistics is not None:
            return self.statistics.nbytes
        if self.zero.is_floating_point():
            return self.scale.nbytes + self.zero.nbytes
        return self.scale.nbytes + (0 if self.spec.symmetric else -(-self.zero.numel() * self.spec.bits // 8))

    @property
    def bits_per_weight(self) -> float:
        """Bits one weight takes when packed, with its share of everything that is stored."""
        return 8 * self.nbytes / self.codes.numel()

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [out, in] that is stored, in the original column order."""
        rows, columns = self.shape
        codes = self.codes.view(rows, self.scale.shape[1], -1).to(torch.float32)
        weight = codes.sub_(self.zero.unsqueeze(2)).mul_(self.scale.to(torch.float32).unsqueeze(2))
        weight = weight.view(rows, columns)
        if self.perm is not None:
            weight = weight[:, torch.argsort(self.perm)]
        for part in (self.dense, self.sparse):
            if part is not None:
                part.write_into(weight)
        return weight.to(dtype)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))
