"""Scales and zero points that are themselves quantized: the second level of SpQR's grids (arXiv 2306.03078, sec. 4.2).

The scales of a few consecutive rows of one column group share a step and a lowest value, and a scale becomes
``lowest + step code``. This is the paper's ``step (code - zero)`` with ``lowest`` stored instead of ``zero``: where
the scales hardly differ, ``zero`` grows beyond what 16 bits hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StatisticsSpec:
    """How scales and zero points are quantized: ``bits`` (2 to 8) a code, ``rows`` consecutive rows a grid."""

    bits: int
    rows: int


@dataclass(eq=False)
class QuantizedStatistic:
    """One real number per row and column group, in ``spec.bits`` bits: all scales, or all zero points, of a weight.

    Attributes:
        codes: uint8 [out, groups].
        step: float16 [ceil(out / rows), groups], not negative.
        lowest: float16 [ceil(out / rows), groups].
        spec: width and rows per grid; the last grid may serve fewer rows.
    """

    codes: Tensor
    step: Tensor
    lowest: Tensor
    spec: StatisticsSpec

    @classmethod
    def joined(cls, parts: Sequence[QuantizedStatistic]) -> QuantizedStatistic:
        """Those of a weight whose rows are the parts', one after the other.

        Raises:
            ValueError: a part that others follow ends inside a grid.
        """
        spec = parts[0].spec
        if any(len(each.codes) % spec.rows for each in parts[:-1]):
            raise ValueError(f"a grid of scales serves {spec.rows} consecutive rows")
        codes, step, lowest = (
            torch.cat([getattr(each, name) for each in parts]) for name in ("codes", "step", "lowest")
        )
        return cls(codes, step, lowest, spec)

    def values(self) -> Tensor:
        """The statistics [out, groups] that the codes stand for, in the type of ``step``."""
        row = torch.arange(len(self.codes), device=self.codes.device) // self.spec.rows
        step, lowest = self.step[row].float(), self.lowest[row].float()
        return step.mul_(self.codes).add_(lowest).to(self.step.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes when packed, all codes as one row of bits."""
        return -(-self.codes.numel() * self.spec.bits // 8) + self.step.nbytes + self.lowest.nbytes


@dataclass(eq=False)
class QuantizedStatistics:
    """The scales of a weight and, unless its grid is symmetric, its zero points."""

    scale: QuantizedStatistic
    zero: QuantizedStatistic | None

    @classmethod
    def joined(cls, parts: Sequence[QuantizedStatistics]) -> QuantizedStatistics:
        """See :meth:`QuantizedStatistic.joined`."""
        zeros = [each.zero for each in parts if each.zero]
        scale = QuantizedStatistic.joined([each.scale for each in parts])
        return cls(scale, QuantizedStatistic.joined(zeros) if zeros else None)

    @property
    def spec(self) -> StatisticsSpec:
        return self.scale.spec

    @property
    def nbytes(self) -> int:
        """Bytes when packed."""
        return self.scale.nbytes + (self.zero.nbytes if self.zero is not None else 0)


def quantize_statistic(x: Tensor, spec: StatisticsSpec, dtype: torch.dtype = torch.float16) -> QuantizedStatistic:
    """Nearest codes of ``x`` [out, groups] on min-max grids over ``spec.rows`` rows each, stored in ``dtype``.

    ``dtype`` rounds the grids before codes are computed; equal statistics come back as they are (in ``dtype``).

    Raises:
        ValueError: ``x`` is not finite, or ``dtype`` cannot hold its values.
    """
    short = -len(x) % spec.rows
    padded = torch.cat([x, x[-1:].expand(short, -1)]).view(-1, spec.rows, x.shape[1])
    low, high = padded.amin(1), padded.amax(1)
    max_code = (1 << spec.bits) - 1
    lowest = low.to(dtype)
    step = ((high - lowest.float()).clamp_(min=0) / max_code).to(dtype)
    if not (torch.isfinite(step).all() and torch.isfinite(lowest).all()):
        raise ValueError(f"the weight needs a scale above {torch.finfo(dtype).max}, the largest that can be stored")
    distance = padded - lowest.float().unsqueeze(1)
    codes = (distance / step.float().unsqueeze(1)).nan_to_num_(nan=0.0).round_().clamp_(0, max_code)
    return QuantizedStatistic(codes.to(torch.uint8).view(-1, x.shape[1])[: len(x)], step, lowest, spec)
