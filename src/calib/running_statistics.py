"""Sufficient statistics of link inputs, accumulated batch by batch; the inputs themselves are never stored.

``||(W - Q) X||^2 = tr((W - Q) H (W - Q)^T)`` with the Gram matrix ``H = X X^T``, so second-order rounding, clip and
scale searches and error measures all work from ``H`` without another forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.calib.gram import add_lower_gram
from src.quant.figures import power_sums
from src.quant.link_statistics import LinkStatistics

_ROWS_AT_ONCE = 1024  # the temporaries of a chunk stay in cache


class RunningStatistics:
    """Accumulates :class:`LinkStatistics` of one link over rows ``x [rows, in_features]``."""

    def __init__(self, in_features: int, *, gram: bool, device: torch.device) -> None:
        self._count = 0
        self._minimum = torch.full((in_features,), torch.inf, device=device)
        self._maximum = torch.full((in_features,), -torch.inf, device=device)
        self._abs_sum = torch.zeros(in_features, dtype=torch.float64, device=device)
        self._powers = torch.zeros(4, in_features, dtype=torch.float64, device=device)
        self._gram = torch.zeros(in_features, in_features, device=device) if gram else None

    def update(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Adds rows ``x [rows, in_features]``.

        ``weights [rows]`` scale each row's share of the Gram matrix, ``H = X R^2 X^T``; the other statistics do not
        know them.
        """
        self._count += x.shape[0]
        for start in range(0, x.shape[0], _ROWS_AT_ONCE):
            chunk = slice(start, start + _ROWS_AT_ONCE)
            self._update(x[chunk].float(), None if weights is None else weights[chunk])

    def _update(self, x: Tensor, weights: Tensor | None) -> None:
        torch.minimum(self._minimum, x.amin(dim=0), out=self._minimum)
        torch.maximum(self._maximum, x.amax(dim=0), out=self._maximum)
        self._abs_sum += x.abs().sum(dim=0)
        self._powers += power_sums(x)
        if self._gram is not None:
            add_lower_gram(self._gram, x if weights is None else x * weights.unsqueeze(1))

    def finish(self) -> LinkStatistics:
        """The statistics of all rows seen.

        Raises:
            ValueError: no row was seen.
        """
        if self._count == 0:
            raise ValueError("no calibration input reached this link")
        abs_mean = (self._abs_sum / self._count).float()
        gram = None if self._gram is None else self._gram.tril() + self._gram.tril(-1).T
        return LinkStatistics(self._count, gram, self._minimum, self._maximum, abs_mean, self._powers / self._count)
