"""Rounding offsets and clip factors that follow the sign of their gradients.

Cheng et al., *Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs* (SignRound, arXiv
2309.05516): ``W_hat = s (clamp(round(W / s + V) + z, 0, 2^N - 1) - z)`` with an offset ``V`` in
[-0.5, 0.5] for every weight and ``s = (alpha max(W) - beta min(W)) / (2^N - 1)``, ``z = -round(beta min(W) / s)`` with
``alpha, beta`` in [0, 1] for every group. All start where nothing is changed: offsets at 0, factors at 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.parts.learned_clip import grid_of_ends, group_ends
from src.methods.parts.straight_through import learning_quantize
from src.quant.grid import Range, weight_range_mse

OFFSETS, FACTORS = (-0.5, 0.5), (0.0, 1.0)  # where the parameters live


class SignedRounding:
    """Learned codes and learned grids of one weight.

    Args:
        W: weight [out, in], float32.
        spec: bits, group size and symmetry.
        start: the grids that factors of 1 stand for.
        clip: learn the factors.
        scale_dtype: type the scales are stored in.
    """

    def __init__(
        self,
        W: Tensor,
        spec: WeightSpec,
        start: Range = "minmax",
        *,
        clip: bool = True,
        scale_dtype: torch.dtype = torch.float16,
    ) -> None:
        self._spec = spec
        self._scale_dtype = scale_dtype
        self._shape = W.shape
        self._groups = W.reshape(W.shape[0], -1, spec.columns_per_group(W.shape[1]))
        if start == "minmax":
            self._low, self._high = group_ends(self._groups)
        else:
            self._low, self._high = _searched_ends(W, spec)
        self.V = torch.zeros_like(self._groups, requires_grad=True)
        self.factors = torch.ones(2, *self._low.shape, device=W.device).requires_grad_(clip)

    def __call__(self) -> Tensor:
        """The dequantized weight [out, in]; differentiable in offsets and factors."""
        return learning_quantize(self._groups, self._spec.bits, *self._grid(), self.V).view(self._shape)

    @torch.no_grad()
    def quantize(self) -> QuantizedWeight:
        """Codes with the learned offsets, on the learned grid as stored; they stand for ``self()``."""
        scale, zero = self._grid()
        codes = (self._groups / scale).add_(self.V).round_().add_(zero).clamp_(0, self._spec.max_code)
        stored = scale.squeeze(2).to(self._scale_dtype)
        return QuantizedWeight(
            codes.to(torch.uint8).view(self._shape), stored, zero.squeeze(2).to(torch.uint8), self._spec
        )

    def _grid(self) -> tuple[Tensor, Tensor]:
        """Scale (as stored) and zero point, each [out, groups, 1]."""
        alpha, beta = self.factors
        return grid_of_ends(beta * self._low, alpha * self._high, self._spec, self._scale_dtype)


def _searched_ends(W: Tensor, spec: WeightSpec) -> tuple[Tensor, Tensor]:
    """Smallest and largest value on each searched grid, [out, groups, 1]; of a symmetric one, the ends of its range."""
    scale, zero = (each.float().unsqueeze(2) for each in weight_range_mse(W, spec))
    middle = torch.full_like(zero, spec.max_code / 2) if spec.symmetric else zero
    return -middle * scale, (spec.max_code - middle) * scale


class SignSGD(torch.optim.Optimizer):
    """Steps of a rate that falls linearly to 0, in the direction of the gradients' signs, inside given bounds.

    Args:
        groups: parameters with their first rate ``lr`` and ``bounds``, a pair of numbers.
        steps: after so many the rate is 0.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], steps: int) -> None:
        super().__init__(groups, {})
        self._steps, self._taken = steps, 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  there is none
        rate = 1 - self._taken / self._steps
        self._taken += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad.sign(), alpha=-group["lr"] * rate).clamp_(*group["bounds"])
