"""Codes and step sizes of a weight that learn together, from wherever another method left them.

Learned step size quantization (Esser et al., *LSQ*, arXiv 1902.08153) with the straight-through estimator (Bengio et
al., arXiv 1308.3432): a latent weight, in units of its step, is rounded where it is used and learns as if it were not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.lowbit.granularity import QuantizedWeight
from src.methods.parts.straight_through import as_stored
from src.quant.fake import straight_through

_INSIDE = 0.499  # a latent this far beyond the ends of its grid is still rounded to them


class LearnedCodes(nn.Module):
    """A parametrization of a linear's weight (:mod:`torch.nn.utils.parametrize`); its original is the latent weight.

    A latent begins at its code and not at the weight that this stands for: codes that make up for the errors of others
    would lie a hair from the next one, and the first steps undo them.

    Args:
        start: codes on plain grids, columns in the original order; zero points stay.
    """

    def __init__(self, start: QuantizedWeight) -> None:
        super().__init__()
        self._start = start
        scale, zero = start.scale.float().unsqueeze(2), start.zero.float().unsqueeze(2)
        self.scale: Tensor
        self.register_buffer("scale", scale, persistent=False)
        self._least, self._most = -zero, start.spec.max_code - zero
        self._latent = (start.codes.float().view(*scale.shape[:2], -1) - zero).view(start.shape)
        self.log_factor = nn.Parameter(torch.zeros_like(scale))

    def forward(self, latent: Tensor) -> Tensor:
        """The dequantized weight [out, in] of ``latent`` [out, in]; differentiable in it and in the step sizes."""
        return (self._codes(latent) * self._scale()).view(latent.shape)

    @torch.no_grad()
    def quantize(self, latent: Tensor) -> QuantizedWeight:
        """What :meth:`forward` stands for, with scales as stored."""
        start, zero = self._start, self._start.zero
        codes = self._codes(latent) + zero.float().unsqueeze(2)
        scale = self._scale().to(start.scale.dtype).squeeze(2)
        return QuantizedWeight(codes.to(torch.uint8).view(latent.shape), scale, zero, start.spec)

    def right_inverse(self, _: Tensor) -> Tensor:
        """What the latent weight is when the parametrization is registered."""
        return self._latent

    def _codes(self, latent: Tensor) -> Tensor:
        """Codes less the zero point, [out, groups, columns]; a latent beyond the ends of the grid learns no further."""
        steps = latent.view(len(latent), self.scale.shape[1], -1).clamp(self._least - _INSIDE, self._most + _INSIDE)
        return straight_through(steps, steps.round())

    def _scale(self) -> Tensor:
        return as_stored(self.scale * self.log_factor.exp(), self._start.scale.dtype)
