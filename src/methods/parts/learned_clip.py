"""Learnable weight clipping (LWC): the ends of every grid shrink by learned factors.

Shao et al., *OmniQuant* (arXiv 2308.13137), eq. (2): ``h = (gamma max(W) - beta min(W)) / (2^N - 1)`` and
``z = -round(beta min(W) / h)`` with ``gamma, beta = sigmoid(.)`` of learned numbers, one pair a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.parts.straight_through import as_stored, learning_quantize
from src.quant.fake import straight_through
from src.quant.grid import quantize

INITIAL_LOGIT = 4.0  # sigmoid(4) = 0.982: nearly the min-max grid, with a slope left to learn from
_SMALLEST_SCALE = 2.0**-24  # the smallest positive float16


class LearnedClip:
    """Learned grids of one weight.

    Args:
        W: weight [out, in], float32; only its shape matters.
        spec: bits, group size and symmetry.
        learn: whether there is anything to learn; if not, the grid is the min-max grid.
        scale_dtype: type the scales are stored in.
    """

    def __init__(
        self, W: Tensor, spec: WeightSpec, *, learn: bool = True, scale_dtype: torch.dtype = torch.float16
    ) -> None:
        groups = W.shape[1] // spec.columns_per_group(W.shape[1])
        self._spec = spec
        self._scale_dtype = scale_dtype
        self.parameters: tuple[Tensor, ...] = ()
        if learn:
            logits = W.new_full((2, W.shape[0], groups, 1), INITIAL_LOGIT)
            self.parameters = tuple(each.clone().requires_grad_() for each in logits)

    def __call__(self, W: Tensor) -> Tensor:
        """The dequantized weight; differentiable in ``W`` [out, in] and in the learned factors."""
        groups = self._grouped(W)
        scale, zero = self._grid(groups)
        return learning_quantize(groups, self._spec.bits, scale, zero).view(W.shape)

    @torch.no_grad()
    def quantize(self, W: Tensor) -> QuantizedWeight:
        """Codes of ``W`` [out, in] on the learned grid, with scales as stored; they stand for ``self(W)``."""
        scale, zero = (each.squeeze(2) for each in self._grid(self._grouped(W)))
        codes = quantize(W, scale, zero, self._spec.bits)
        return QuantizedWeight(codes, scale.to(self._scale_dtype), zero.to(torch.uint8), self._spec)

    def _grouped(self, W: Tensor) -> Tensor:
        return W.reshape(W.shape[0], -1, self._spec.columns_per_group(W.shape[1]))

    def _grid(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (as stored) and zero point, each [out, groups, 1]; zero points are constants."""
        low, high = group_ends(groups)
        if self.parameters:
            gamma, beta = (torch.sigmoid(each) for each in self.parameters)
            low, high = beta * low, gamma * high
        scale, zero = grid_of_ends(low, high, self._spec, self._scale_dtype)
        return scale, zero.detach()


def group_ends(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each of ``groups`` [out, groups, columns], or 0: each [out, groups, 1].

    A group of zeros gets the ends -1 and 1.
    """
    low, high = groups.amin(2, keepdim=True).clamp(max=0), groups.amax(2, keepdim=True).clamp(min=0)
    empty = (low == 0) & (high == 0)
    return low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)


def grid_of_ends(low: Tensor, high: Tensor, spec: WeightSpec, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale (as stored in ``scale_dtype``) and zero point of grids from ``low`` to ``high``, with gradients to both."""
    if spec.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = as_stored(((high - low) / spec.max_code).clamp(min=_SMALLEST_SCALE), scale_dtype)
    if spec.symmetric:
        return scale, torch.full_like(scale, spec.middle_code)
    zero = -low / scale
    return scale, straight_through(zero, zero.detach().round().clamp(0, spec.max_code))
