"""Progressive adaptive rounding (PAR) and dequantization scale tuning (DST) of TesseraQ.

Li and Panda, *TesseraQ: Ultra Low-Bit LLM Post-Training Quantization with Block Reconstruction* (arXiv 2410.19103):
``W_hat = 2 sigma(v) s (clamp(floor(W / s) + alpha + z, 0, 2^N - 1) - z)`` with a rounding variable
``alpha = sigma(nu)`` in [0, 1] for every weight and one factor ``2 sigma(v)`` for every group. Both start where the
given grid rounds nothing away: ``alpha`` at the fraction of ``W / s``, the factor at 1. ``sigma`` is the rectified
sigmoid of AdaRound (arXiv 2004.10568), as in the authors' code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight
from src.methods.parts.straight_through import as_stored

_LOW, _HIGH = -0.1, 1.1  # the sigmoid is stretched to this range and cut to [0, 1], so that ends are reached
_HARD = 100.0  # a logit at which the rectified sigmoid is exactly 0 or 1 and has no slope


def rectified_sigmoid(x: Tensor) -> Tensor:
    """``clamp(1.2 sigmoid(x) - 0.1, 0, 1)``."""
    return torch.sigmoid(x).mul(_HIGH - _LOW).add(_LOW).clamp(0, 1)


def inverse_rectified_sigmoid(y: Tensor) -> Tensor:
    """The logit whose rectified sigmoid is ``y``, for ``y`` in [0, 1]."""
    return torch.logit((y - _LOW) / (_HIGH - _LOW))


class _SoftCodes(torch.autograd.Function):
    """``floor_code + free * sigma(nu)``, and its slope in one pass."""

    @staticmethod
    def forward(ctx: Any, nu: Tensor, floor_code: Tensor, free: Tensor) -> Tensor:
        sigmoid = torch.sigmoid(nu)
        stretched = sigmoid * (_HIGH - _LOW) + _LOW
        alpha = stretched.clamp(0, 1)
        if ctx.needs_input_grad[0]:
            slope = sigmoid.mul_(1 - sigmoid).mul_(_HIGH - _LOW).mul_(free)
            ctx.save_for_backward(slope.masked_fill_(alpha != stretched, 0.0))
        return alpha.mul_(free).add_(floor_code)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


class AdaptiveRounding:
    """Learned codes of one weight on a given grid, and learned factors on its scales.

    Args:
        W: weight [out, in], float32.
        start: its grid; whose codes do not matter. Columns in the original order.
        tune_scale: learn the factors.
    """

    def __init__(self, W: Tensor, start: QuantizedWeight, *, tune_scale: bool) -> None:
        self._start = start
        self._scale, self._zero = start.scale.float().unsqueeze(2), start.zero.float().unsqueeze(2)
        steps = W.reshape(W.shape[0], self._scale.shape[1], -1) / self._scale
        code = steps.floor() + self._zero
        self._floor_code = code.clamp(0, start.spec.max_code) - self._zero
        self._free = ((code >= 0) & (code < start.spec.max_code)).float()
        self.nu = inverse_rectified_sigmoid(steps - steps.floor()).requires_grad_()
        self.v = torch.zeros_like(self._scale, requires_grad=True) if tune_scale else None

    def __call__(self) -> Tensor:
        """The dequantized weight [out, in], with whatever is still between two codes; differentiable."""
        codes: Tensor = _SoftCodes.apply(self.nu, self._floor_code, self._free)  # type: ignore[no-untyped-call]
        return (codes * self._tuned_scale()).view(self._start.shape)

    @torch.no_grad()
    def harden(self, soft: float) -> None:
        """Rounds for good the weights that are surest of their direction, so that a share ``soft`` stays free.

        A weight's score is ``|sigma(nu) - 1/2|``; those above the ``soft`` quantile of their layer get a logit so large
        that neither their value nor the optimiser moves again. At ``soft`` = 0 everything is rounded.
        """
        if soft > 0:
            alpha = rectified_sigmoid(self.nu)
            limit = torch.quantile((alpha - 0.5).abs(), soft)
            chosen = (alpha - 0.5).abs() > limit
        else:
            chosen = torch.ones_like(self.nu, dtype=torch.bool)
        hard = torch.where(self.nu > 0, _HARD, -_HARD)
        self.nu.copy_(torch.where(chosen, hard, self.nu))

    @torch.no_grad()
    def quantize(self) -> QuantizedWeight:
        """Codes with every weight rounded, and tuned scales as stored; they stand for ``self()`` once all is hard."""
        codes = self._floor_code + self._zero + self._free * (self.nu > 0)
        scale = self._tuned_scale().to(self._start.scale.dtype).squeeze(2)
        return QuantizedWeight(codes.to(torch.uint8).view(self._start.shape), scale, self._start.zero, self._start.spec)

    def _tuned_scale(self) -> Tensor:
        """Scales [out, groups, 1] as they will be stored."""
        if self.v is None:
            return self._scale
        return as_stored(self._scale * 2 * rectified_sigmoid(self.v), self._start.scale.dtype)
