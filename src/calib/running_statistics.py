"""Sufficient statistics of link inputs, accumulated batch by batch; the inputs themselves are never stored.

``||(W - Q) X||^2 = tr((W - Q) H (W - Q)^T)`` with the Gram matrix ``H = X X^T``, so second-order rounding, clip and
scale searches and error measures all work from ``H`` without another forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from src.calib.gram import BalancedGrams
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
        outputs: by linear path, what a row counts beside ``weights^2`` for each group of its output channels, [groups,
            rows]: the share is ``R^2`` itself. Only matrices of these groups know it.
    """

    weights: Tensor | None = None
    rare: Tensor | None = None
    unrounded: Tensor | None = None
    outputs: Mapping[str, Tensor] = field(default_factory=dict)

    def part(self, chosen: slice | Tensor) -> About:
        """Of the rows ``chosen``, a slice or bool [rows]."""
        weights, rare, unrounded = (
            None if each is None else each[chosen] for each in (self.weights, self.rare, self.unrounded)
        )
        return About(weights, rare, unrounded, {path: each[:, chosen] for path, each in self.outputs.items()})


_NOTHING = About()


class RunningStatistics:
    """Accumulates :class:`LinkStatistics` of one link over rows ``x [rows, in_features]``."""

    def __init__(self, in_features: int, *, gram: bool, device: torch.device, cross: bool = False) -> None:
        self._count = 0
        self._minimum = torch.full((in_features,), torch.inf, device=device)
        self._maximum = torch.full((in_features,), -torch.inf, device=device)
        self._abs_sum = torch.zeros(in_features, dtype=torch.float64, device=device)
        self._powers = torch.zeros(4, in_features, dtype=torch.float64, device=device)
        self._new_grams = partial(BalancedGrams, in_features, cross=cross, device=device)
        self._grams = self._new_grams() if gram or cross else None
        self._by_output: dict[str, list[BalancedGrams]] = {}  # made when the first rows come

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
        self._grams.add(x, about.unrounded, about.weights, about.rare)
        for path, shares in about.outputs.items():
            own = self._by_output.setdefault(path, [self._new_grams() for _ in shares])
            for grams, share in zip(own, shares.float().sqrt(), strict=True):
                weights = share if about.weights is None else share * about.weights
                grams.add(x, about.unrounded, weights, about.rare)

    def finish(self) -> LinkStatistics:
        """The statistics of all rows seen.

        Raises:
            ValueError: no row was seen.
        """
        if self._count == 0:
            raise ValueError("no calibration input reached this link")
        gram, cross_gram = (None, None) if self._grams is None else self._grams.finish()
        by_output = {path: tuple(each.finish() for each in grams) for path, grams in self._by_output.items()}
        return LinkStatistics(
            self._count,
            gram,
            self._minimum,
            self._maximum,
            (self._abs_sum / self._count).float(),
            self._powers / self._count,
            cross_gram,
            by_output,
        )
