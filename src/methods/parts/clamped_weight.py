"""Weights cut at learned ends before they are rounded, whoever rounds them.

FlatQuant's learnable clipping (arXiv 2410.09426, sec. 3.1): a group of ``W`` is clamped to ``[sigmoid(b) min W,
sigmoid(c) max W]``, and what is left is rounded to its own min-max grid. OmniQuant's
(:mod:`src.methods.parts.learned_clip`) gives the same values but other gradients, and a grid instead of a weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.methods.parts.learned_clip import INITIAL_LOGIT, grid_of_ends, group_ends
from src.methods.parts.straight_through import learning_quantize


class ClampedWeight:
    """Learned ends of one weight's groups.

    Args:
        W: weight [out, in], float32; only its shape matters.
        spec: bits, group size and symmetry.
        learn: whether there are any; if not, nothing is cut.
        scale_dtype: type the scales are stored in.
    """

    def __init__(
        self, W: Tensor, spec: WeightSpec, *, learn: bool = True, scale_dtype: torch.dtype = torch.float16
    ) -> None:
        self._spec, self._scale_dtype = spec, scale_dtype
        groups = W.shape[1] // spec.columns_per_group(W.shape[1])
        logits = W.new_full((2, W.shape[0], groups, 1), INITIAL_LOGIT)
        self.parameters: tuple[Tensor, ...] = tuple(each.clone().requires_grad_() for each in logits) if learn else ()

    def clamped(self, W: Tensor) -> Tensor:
        """``W`` [out, in] with what lies beyond its group's ends at these; differentiable."""
        return self._clamp(self._grouped(W)).view(W.shape)

    def __call__(self, W: Tensor) -> Tensor:
        """The clamped weight rounded to nearest on min-max grids, dequantized; differentiable."""
        groups = self._clamp(self._grouped(W))
        scale, zero = grid_of_ends(*group_ends(groups), self._spec, self._scale_dtype)
        return learning_quantize(groups, self._spec.bits, scale, zero.detach()).view(W.shape)

    def _grouped(self, W: Tensor) -> Tensor:
        return W.reshape(W.shape[0], -1, self._spec.columns_per_group(W.shape[1]))

    def _clamp(self, groups: Tensor) -> Tensor:
        if not self.parameters:
            return groups
        upper, lower = (torch.sigmoid(each) for each in self.parameters)
        low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
        return torch.clamp(groups, min=low * lower, max=high * upper)
