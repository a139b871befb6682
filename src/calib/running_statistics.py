"""Sufficient statistics of link inputs, accumulated batch by batch; the inputs themselves are never stored.

``||(W - Q) X||^2 = tr((W - Q) H (W - Q)^T)`` with the Gram matrix ``H = X X^T``, so second-order rounding, clip and
scale searches and error measures all work from ``H`` without another forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from src.calib.gram import RunningGrams
from src.quant.figures import power_sums
from src.quant.link_statistics import LinkStatistics

_ROWS_AT_ONCE = 1024  # the temporaries of a chunk stay in cache


@dataclass(frozen=True)
class About:
    """What is told of rows beside their values. Only the Gram matrices know it.

    Attributes:
        weights: [rows], scales each row's share: ``H = X R^2 X^T``; None counts all alike.
        rare: bool [rows], rows that together count as much as all others; None where there are none.
        unrounded: the same rows in the model that is not rounded, [rows, in]; cross-Gram matrices need them.
    """

    weights: Tensor | None = None
    rare: Tensor | None = None
    unrounded: Tensor | None = None

    def part(self, chosen: slice | Tensor) -> About:
        """Of the rows ``chosen``, a slice or bool [rows]."""
        return About(*(None if each is None else each[chosen] for each in (self.weights, self.rare, self.unrounded)))


_NOTHING = About()


class RunningStatistics:
    """Accumulates :class:`LinkStatistics` of one link over rows ``x [rows, in_features]``."""

    def __init__(self, in_features: int, *, gram: bool, device: torch.device, cross: bool = False) -> None:
        self._count = 0
        self._minimum = torch.full((in_features,), torch.inf, device=device)
        self._maximum = torch.full((in_features,), -torch.inf, device=device)
        self._abs_sum = torch.zeros(in_features, dtype=torch.float64, device=device)
        self._powers = torch.zeros(4, in_features, dtype=torch.float64, device=device)
        self._cross = cross
        self._grams = RunningGrams(in_features, cross=cross, device=device) if gram or cross else None
        self._rare: RunningGrams | None = None  # made when the first rare row comes

    def update(self, x: Tensor, about: About = _NOTHING) -> None:
        """Adds rows ``x [rows, in_features]``."""
        self._count += x.shape[0]
        for start in range(0, x.shape[0], _ROWS_AT_ONCE):
            chunk = slice(start, start + _ROWS_AT_ONCE)
            self._update(x[chunk].float(), about.part(chunk))

    def _update(self, x: Tensor, about: About) -> None:
        torch.minimum(self._minimum, x.amin(dim=0), out=self._minimum)
        torch.maximum(self._maximum, x.amax(dim=0), out=self._maximum)
        self._abs_sum += x.abs().sum(dim=0)
        self._powers += power_sums(x)
        if self._grams is None:
            return
        if about.rare is None or not about.rare.any():
            self._grams.add(x, about.unrounded, about.weights)
            return
        if self._rare is None:
            self._rare = RunningGrams(x.shape[1], cross=self._cross, device=x.device)
        for grams, chosen in ((self._grams, ~about.rare), (self._rare, about.rare)):
            part = about.part(chosen)
            if chosen.any():
                grams.add(x[chosen], part.unrounded, part.weights)

    def finish(self) -> LinkStatistics:
        """The statistics of all rows seen.

        Raises:
            ValueError: no row was seen.
        """
        if self._count == 0:
            raise ValueError("no calibration input reached this link")
        gram, cross_gram = None, None
        if self._grams is not None:
            gram, cross_gram = self._grams.balanced(self._rare) if self._rare else self._grams.finish()
        return LinkStatistics(
            self._count,
            gram,
            self._minimum,
            self._maximum,
            (self._abs_sum / self._count).float(),
            self._powers / self._count,
            cross_gram,
        )
