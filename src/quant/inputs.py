"""Grids that inputs of linears are rounded to: one a token, found as it comes, or one a tensor, found beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from src.quant.fake import fake_quantize, fake_quantize_tokens, grid_between


@dataclass(frozen=True, eq=False)
class InputGrid:
    """How the input of one linear is rounded.

    Attributes:
        symmetric: whether the zero point is the grid's middle code.
        scale: float32 [], the static grid's step; None where every token has a grid of its own.
        zero: uint8 [], its zero point; None with ``scale``.
    """

    symmetric: bool = False
    scale: Tensor | None = None
    zero: Tensor | None = None

    def round(self, x: Tensor, bits: int) -> Tensor:
        """``x`` [..., in] rounded to ``bits`` bits; a static grid clips what calibration never saw."""
        if self.scale is None or self.zero is None:
            return fake_quantize_tokens(x, bits, self.symmetric)
        return fake_quantize(x, bits, self.scale, self.zero.float())

    def to(self, device: torch.device) -> InputGrid:
        if self.scale is None or self.zero is None:
            return self
        return InputGrid(self.symmetric, self.scale.to(device), self.zero.to(device))


PER_TOKEN = InputGrid()


def static_grid(minimum: Tensor, maximum: Tensor, bits: int, *, symmetric: bool, exact: Tensor | None) -> InputGrid:
    """The grid from the smallest to the largest value that calibration saw in any channel.

    Args:
        minimum: smallest value of each channel, [in].
        maximum: largest value of each channel, [in].
        bits: width of a code.
        symmetric: see :class:`InputGrid`.
        exact: int64 indices [k] of channels that are not rounded and do not count; None means none.
    """
    low, high = minimum.float(), maximum.float()
    if exact is not None:
        low, high = low.index_fill(0, exact.to(low.device), 0), high.index_fill(0, exact.to(high.device), 0)
    scale, zero = grid_between(low.amin(), high.amax(), bits, symmetric)
    return InputGrid(symmetric, scale, zero.to(torch.uint8))
