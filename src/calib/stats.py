"""Sufficient statistics of link inputs, accumulated batch by batch; the inputs themselves are never stored.

``||(W - Q) X||^2 = tr((W - Q) H (W - Q)^T)`` with the Gram matrix ``H = X X^T``, so second-order rounding, clip and
scale searches and error measures all work from ``H`` without another forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.methods.base import LinkStatistics


class RunningStatistics:
    """Accumulates :class:`LinkStatistics` of one link over rows ``x [rows, in_features]``."""

    def __init__(self, in_features: int, *, gram: bool, device: torch.device) -> None:
        self._count = 0
        self._abs_max = torch.zeros(in_features, device=device)
        self._abs_sum = torch.zeros(in_features, dtype=torch.float64, device=device)
        self._gram = torch.zeros(in_features, in_features, device=device) if gram else None

    def update(self, x: Tensor) -> None:
        """Adds rows ``x [rows, in_features]``."""
        x = x.float()
        magnitude = x.abs()
        self._count += x.shape[0]
        torch.maximum(self._abs_max, magnitude.amax(dim=0), out=self._abs_max)
        self._abs_sum += magnitude.sum(dim=0, dtype=torch.float64)
        if self._gram is not None:
            self._gram.addmm_(x.T, x)

    def finish(self) -> LinkStatistics:
        """The statistics of all rows seen.

        Raises:
            ValueError: no row was seen.
        """
        if self._count == 0:
            raise ValueError("no calibration input reached this link")
        abs_mean = (self._abs_sum / self._count).float()
        return LinkStatistics(count=self._count, gram=self._gram, abs_max=self._abs_max, abs_mean=abs_mean)
