"""What a quantized weight is: its specification, and its codes, scales, zero points and column order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass(eq=False)
class QuantizedWeight:
    """One linear's weight on an integer grid: ``W = scale (code - zero)``.

    Attributes:
        codes: uint8 [out, in], each in ``0 .. 2^bits - 1``.
        scale: float16 [out, groups] (float32 where a caller asked for unrounded scales).
        zero: uint8 [out, groups], a code.
        spec: the specification the codes follow.
        perm: int64 [in], or None. Stored column ``j`` is column ``perm[j]`` of the weight; groups are consecutive in
            the stored order. None means the original order.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    spec: WeightSpec
    perm: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form (:func:`src.quant.pack.pack_weight`): codes, scales, zeros and order."""
        rows, columns = self.shape
        codes = rows * (-(-columns * self.spec.bits // 8))
        zeros = 0 if self.spec.symmetric else -(-self.zero.numel() * self.spec.bits // 8)
        order = 0 if self.perm is None else 4 * columns
        return codes + self.scale.numel() * self.scale.element_size() + zeros + order

    @property
    def bits_per_weight(self) -> float:
        """Bits one weight takes when packed, with its share of scales, zero points and column order."""
        return 8 * self.nbytes / self.codes.numel()

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [out, in] the codes stand for, in the original column order."""
        rows, columns = self.shape
        codes = self.codes.view(rows, self.scale.shape[1], -1).to(torch.float32)
        weight = codes.sub_(self.zero.unsqueeze(2)).mul_(self.scale.to(torch.float32).unsqueeze(2))
        weight = weight.view(rows, columns)
        if self.perm is not None:
            weight = weight[:, torch.argsort(self.perm)]
        return weight.to(dtype)
