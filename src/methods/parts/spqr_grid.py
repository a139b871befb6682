"""The grids of SpQR (arXiv 2306.03078): real zero points, two levels, and which weights they cannot represent.

A group's grid spans its smallest to its largest weight and need not contain 0: ``w = scale (code - zero)`` with codes
``clamp(round(w / scale + zero), 0, 2^b - 1)``. Symmetric grids span ``[-m, m]`` with zero point ``2^(b-1)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from src.lowbit.double_quantization import QuantizedStatistic, StatisticsSpec, quantize_statistic
from src.lowbit.granularity import WeightSpec

# A group whose range is a smaller share of its largest magnitude gets a range that includes 0: zero points then stay
# within two grids' widths, where 16 bits still tell codes apart. Groups of equal weights are exact that way.
NARROWEST_RANGE = 0.5


@dataclass
class Grid:
    """One grid per row: ``scale``, ``zero`` float32 [out], and how each is stored.

    ``stored_zero`` is None where the grid is symmetric and ``zero`` follows from the bits.
    """

    scale: Tensor
    zero: Tensor
    stored_scale: QuantizedStatistic
    stored_zero: QuantizedStatistic | None


def grid_of_range(low: Tensor, high: Tensor, spec: WeightSpec) -> tuple[Tensor, Tensor]:
    """Unrounded scale and zero point of grids from ``low`` to ``high``, all of one shape."""
    magnitude = torch.maximum(high.abs(), low.abs())
    smallest = torch.finfo(torch.float32).tiny
    if spec.symmetric:
        scale = (2 * magnitude / spec.max_code).clamp_(min=smallest)
        return scale, torch.full_like(scale, spec.middle_code)
    narrow = high - low < NARROWEST_RANGE * magnitude
    low, high = torch.where(narrow, low.clamp(max=0), low), torch.where(narrow, high.clamp(min=0), high)
    scale = ((high - low) / spec.max_code).clamp_(min=smallest)
    return scale, -low / scale


def nearest(w: Tensor, scale: Tensor, zero: Tensor, spec: WeightSpec) -> Tensor:
    """Nearest codes of ``w``, as floats, on grids that broadcast against it."""
    return (w / scale + zero).round_().clamp_(0, spec.max_code)


def leave_one_out_gain(w: Tensor, u: Tensor, spec: WeightSpec) -> Tensor:
    """How far the weighted error of a group falls when one of its weights is left out of grid and error.

    ``e(group) - e(group without w_j)`` with ``e = sum ((w - q) / u)^2``: the outlier criterion of Algorithm 1. Only
    leaving out an extreme changes the grid, so three grids a group are enough. Grids are one-level here, as in the
    authors' code.

    Args:
        w: one group of every row, transposed, [columns, out], at least 2 columns.
        u: diagonal of the Cholesky factor for these columns, [columns].
        spec: bits and symmetry.

    Returns:
        [columns, out].
    """
    (low, next_low), at_low = _two_extremes(w, largest=False)
    (high, next_high), at_high = _two_extremes(w, largest=True)
    error = _errors(w, u, low, high, spec)
    total = error.sum(0)
    gain = error.clone()
    for at, ends in ((at_low, (next_low, high)), (at_high, (low, next_high))):
        without = _errors(w, u, *ends, spec).scatter_(0, at, 0.0).sum(0)
        gain.scatter_(0, at, (total - without).unsqueeze(0))
    return gain


def _two_extremes(w: Tensor, *, largest: bool) -> tuple[tuple[Tensor, Tensor], Tensor]:
    values, at = w.topk(2, dim=0, largest=largest)
    return (values[0], values[1]), at[:1]


def _errors(w: Tensor, u: Tensor, low: Tensor, high: Tensor, spec: WeightSpec) -> Tensor:
    scale, zero = grid_of_range(low, high, spec)
    q = nearest(w, scale, zero, spec).sub_(zero).mul_(scale)
    return q.sub_(w).div_(u.unsqueeze(1)).square_()


def fit_grid(
    w: Tensor, u: Tensor, threshold: float, spec: WeightSpec, statistics: StatisticsSpec, dtype: torch.dtype
) -> Grid:
    """Two-level grid of one group, fitted without its likely outliers.

    Args:
        w: one group of every row, transposed, [columns, out].
        u: diagonal of the Cholesky factor for these columns, [columns].
        threshold: gain above which a weight is a likely outlier; infinite for none.
        spec: bits and symmetry.
        statistics: how scales and zero points are quantized.
        dtype: type the second level is stored in.
    """
    likely = leave_one_out_gain(w, u, spec) > threshold
    kept = ~likely
    mean = (w * kept).sum(0) / kept.sum(0).clamp_(min=1)
    cleaned = torch.where(likely, mean, w)
    scale, zero = grid_of_range(cleaned.amin(0), cleaned.amax(0), spec)
    limits = torch.finfo(dtype)
    scale.clamp_(min=limits.smallest_normal * limits.eps)
    stored_scale = quantize_statistic(scale.unsqueeze(1), statistics, dtype)
    effective = stored_scale.values()[:, 0].float()
    if spec.symmetric:
        return Grid(effective, zero, stored_scale, None)
    stored_zero = quantize_statistic(zero.unsqueeze(1), statistics, dtype)
    return Grid(effective, stored_zero.values()[:, 0].float(), stored_scale, stored_zero)
