"""Integer grids for weights: choosing scale and zero point, and rounding to codes.

A weight ``w`` becomes the code ``clamp(round(w / scale) + zero, 0, 2^b - 1)`` and back ``scale (code - zero)``: eqs.
(4)-(6) of Nagel et al., *A White Paper on Neural Network Quantization* (arXiv 2106.08295). Ranges always contain 0, so
0 is on every grid. The symmetric grid covers ``[-m, m]`` with ``m = max |w|``, step ``2m / (2^b - 1)`` and zero point
``2^(b-1)``; it is the one of the GPTQ authors' code, on which ``m`` itself rounds down by half a step.

Scales are rounded to their storage type before codes are computed, so the stored grid is the one that was used.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec

Range = Literal["minmax", "mse"]

# Both ends shrink together, by 1, 0.99, ... 0.21, and the error is |w - q|^2.4, between squared and peak error: the
# search in the quantizer of the GPTQ authors' code (IST-DASLab/gptq, quant.py).
SHRINK_FACTORS = tuple(1 - step / 100 for step in range(80))
ERROR_NORM = 2.4
_SEARCH_ELEMENTS = 1 << 18  # weights searched at once: the temporaries of a chunk stay in cache


def weight_range_minmax(W: Tensor, spec: WeightSpec, scale_dtype: torch.dtype = torch.float16) -> tuple[Tensor, Tensor]:
    """Grid that spans the smallest to the largest weight of each group.

    Args:
        W: weight [out, in], float32.
        spec: bits, group size and symmetry.
        scale_dtype: type the scales are stored in.

    Returns:
        ``scale`` [out, groups] of ``scale_dtype`` and ``zero`` uint8 [out, groups].

    Raises:
        ValueError: ``W`` is not finite, or needs a scale that ``scale_dtype`` cannot hold.
    """
    low, high = _ends(_grouped(W, spec), spec)
    scale, zero = _grid(low, high, spec, scale_dtype)
    return scale, zero.to(torch.uint8)


def weight_range_mse(W: Tensor, spec: WeightSpec, scale_dtype: torch.dtype = torch.float16) -> tuple[Tensor, Tensor]:
    """Grid that minimises ``sum |w - q|^2.4`` in each group over :data:`SHRINK_FACTORS` of the min-max range.

    Arguments, results and errors are those of :func:`weight_range_minmax`.
    """
    groups = _grouped(W, spec)
    rows_at_once = max(1, _SEARCH_ELEMENTS // W.shape[1])
    found = [_search(rows, spec, scale_dtype) for rows in torch.split(groups, rows_at_once)]
    return torch.cat([scale for scale, _ in found]), torch.cat([zero for _, zero in found]).to(torch.uint8)


def weight_range(
    W: Tensor, spec: WeightSpec, search: Range, scale_dtype: torch.dtype = torch.float16
) -> tuple[Tensor, Tensor]:
    """:func:`weight_range_minmax` or :func:`weight_range_mse`, by name."""
    find = {"minmax": weight_range_minmax, "mse": weight_range_mse}[search]
    return find(W, spec, scale_dtype)


def quantize(W: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest codes, uint8 [out, in], of ``W`` [out, in] on the grids ``scale`` and ``zero`` [out, groups]."""
    groups = W.reshape(W.shape[0], scale.shape[1], -1)
    codes = nearest_codes(groups, scale.unsqueeze(2).float(), zero.unsqueeze(2).float(), bits)
    return codes.to(torch.uint8).view(W.shape)


def nearest_codes(w: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest codes of ``w``, as floats, on grids that broadcast against it."""
    return (w / scale).round_().add_(zero).clamp_(0, (1 << bits) - 1)


def round_to_nearest(
    W: Tensor, spec: WeightSpec, search: Range = "minmax", scale_dtype: torch.dtype = torch.float16
) -> QuantizedWeight:
    """Quantizes ``W`` [out, in] weight by weight, without looking at what it is multiplied with."""
    scale, zero = weight_range(W, spec, search, scale_dtype)
    return QuantizedWeight(quantize(W, scale, zero, spec.bits), scale, zero, spec)


def _grouped(W: Tensor, spec: WeightSpec) -> Tensor:
    """View of ``W`` as [out, groups, columns per group]."""
    if not torch.isfinite(W).all():
        raise ValueError("the weight holds NaN or infinity")
    return W.reshape(W.shape[0], -1, spec.columns_per_group(W.shape[1]))


def _ends(groups: Tensor, spec: WeightSpec) -> tuple[Tensor, Tensor]:
    """Ends of each group's range; they enclose 0. A group of zeros gets [-1, 1], on which it is exact."""
    low, high = groups.amin(2).clamp_(max=0), groups.amax(2).clamp_(min=0)
    if spec.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = (low == 0) & (high == 0)
    return low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)


def _grid(low: Tensor, high: Tensor, spec: WeightSpec, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale of ``scale_dtype`` and zero point (a float) of the grid from ``low`` to ``high``."""
    limits = torch.finfo(scale_dtype)
    scale = ((high - low) / spec.max_code).to(scale_dtype).clamp_(min=limits.smallest_normal * limits.eps)
    if not torch.isfinite(scale).all():
        raise ValueError(f"the weight needs a scale above {limits.max}, the largest that can be stored")
    if spec.symmetric:
        return scale, torch.full_like(low, spec.middle_code)
    return scale, (-low / scale.float()).round_().clamp_(0, spec.max_code)


def _error(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    scale, zero = scale.unsqueeze(2), zero.unsqueeze(2)
    rounded = nearest_codes(groups, scale, zero, bits).sub_(zero).mul_(scale)
    return rounded.sub_(groups).abs_().pow_(ERROR_NORM).sum(2)


def _search(groups: Tensor, spec: WeightSpec, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Best grid of each group [rows, groups, columns] among the shrunken ranges; the widest wins a tie."""
    low, high = _ends(groups, spec)
    best_scale, best_zero = _grid(low, high, spec, scale_dtype)
    least = _error(groups, best_scale.float(), best_zero, spec.bits)
    for factor in SHRINK_FACTORS[1:]:
        scale, zero = _grid(factor * low, factor * high, spec, scale_dtype)
        error = _error(groups, scale.float(), zero, spec.bits)
        better = error < least
        least = torch.where(better, error, least)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero
