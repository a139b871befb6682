"""HQQ: half-quadratic quantization, which needs no data: zero points that fit weights with a sparse error.

Badri and Shaji, *Half-Quadratic Quantization of Large Machine Learning Models* (Mobius Labs, 2023): minimise
``||W - Q_z^-1(Q_z(W))||_p^p`` with ``p < 1`` over the zero points ``z`` alone, by splitting off the error ``W_e`` and
alternating between a shrinkage step for ``W_e`` and a mean for ``z``, while ``beta`` grows. Zero points are real
numbers. Annealing is part of the method; in the authors' code it is in ``optimize_weights_proximal_v2``, and was in the
default solver until commit a566c78 (2025-05-23).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, Fraction, Positive
from src.quant.extras import Extra
from src.quant.link_statistics import LinkStatistics

# As in the authors' code (hqq/core/quantize.py): groups narrower than this get scale 1, and no scale is smaller.
NARROWEST = 1e-4
SMALLEST_SCALE = 5e-5


@dataclass(frozen=True)
class HQQ(Method):
    """Half-quadratic quantization.

    Attributes:
        lp_norm: the ``p`` of the error's norm, above 0 and at most 1.
        beta: weight of the split at the start, above 0.
        kappa: factor by which ``beta`` grows in every iteration, above 1.
        iterations: at most; the solver stops when the mean error no longer falls.
    """

    lp_norm: Fraction
    beta: Positive
    kappa: Annotated[float, Field(gt=1, allow_inf_nan=False, description="a number above 1", examples=["1.01"])]
    iterations: Count

    @property
    def needs(self) -> Needs:
        return Needs(stores=frozenset({Extra.REAL_ZEROS}))

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:  # noqa: ARG002  a hook
        """Codes and real zero points of ``W``; ``stats`` is not used. See :meth:`Method.round`.

        Raises:
            UserError: symmetric grids are asked for.
        """
        weight = hqq(W, spec, lp_norm=self.lp_norm, beta=self.beta, kappa=self.kappa, iterations=self.iterations)
        return Rounded(weight)


def hqq(
    W: Tensor,
    spec: WeightSpec,
    *,
    lp_norm: float,
    beta: float,
    kappa: float,
    iterations: int,
    stored: torch.dtype = torch.float16,
) -> QuantizedWeight:
    """Quantizes ``W`` [out, in] with real zero points.

    Scales span each group's smallest to largest weight, are rounded to the type they are stored in and then fixed.

    Args:
        W: weight [out, in], float32; not changed.
        spec: bits and group size; not symmetric.
        lp_norm: see :class:`HQQ`, as for ``beta``, ``kappa`` and ``iterations``.
        beta: weight of the split at the start.
        kappa: its growth.
        iterations: at most.
        stored: type of scales and zero points.

    Raises:
        UserError: the grid is symmetric.
    """
    if spec.symmetric:
        raise UserError("symmetric", "hqq fits zero points, which symmetric grids do not have", "Use symmetric=false")
    groups = W.reshape(W.shape[0], -1, spec.columns_per_group(W.shape[1]))
    scale, zero = _span(groups, spec.max_code, stored)
    zero = _fit_zero(groups, scale, zero, spec.max_code, lp_norm, beta, kappa, iterations).to(stored)
    codes = _codes(groups, scale, zero.float(), spec.max_code).to(torch.uint8).view(W.shape)
    return QuantizedWeight(codes, scale.to(stored).squeeze(2), zero.squeeze(2), spec)


def _span(groups: Tensor, max_code: int, stored: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale, a value that ``stored`` can hold, and zero point from min to max; both float32 [out, groups, 1]."""
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    span = high - low
    scale = torch.where(span <= NARROWEST, 1.0, span / max_code).clamp_(min=SMALLEST_SCALE).to(stored).float()
    return scale, -low / scale


def _fit_zero(
    groups: Tensor, scale: Tensor, zero: Tensor, max_code: int, p: float, beta: float, kappa: float, iterations: int
) -> Tensor:
    """Zero points [out, groups, 1] with the least mean ``|W - W_r|`` over the whole weight, among the iterates."""
    best, least = zero, torch.inf
    for _ in range(iterations + 1):
        codes = _codes(groups, scale, zero, max_code)
        error = groups - (codes - zero) * scale
        mean = float(error.abs().mean())
        if mean >= least:
            break
        best, least = zero, mean
        error = _shrink(error, beta, p)
        zero = (codes - (groups - error) / scale).mean(2, keepdim=True)
        beta *= kappa
    return best


def _codes(groups: Tensor, scale: Tensor, zero: Tensor, max_code: int) -> Tensor:
    return (groups / scale).add_(zero).round_().clamp_(0, max_code)


def _shrink(x: Tensor, beta: float, p: float) -> Tensor:
    """The generalised soft threshold ``sign(x) relu(|x| - |x|^(p - 1) / beta)``."""
    size = x.abs()
    return (size - size.pow(p - 1) / beta).clamp_(min=0).mul_(x.sign())
