"""What rows count for the outputs of single linears, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.models.graph import Link


@dataclass(frozen=True, eq=False)
class OutputWeights:
    """Shares of rows in Gram matrices of groups of output channels; see :class:`~src.calib.running_statistics.About`.

    Attributes:
        shares: by linear path, a tensor [groups, rows] a clip, without padding; on the CPU or where the model is.
        batch_size: clips that go through a block together.
    """

    shares: Mapping[str, Sequence[Tensor]]
    batch_size: int

    def of(self, links: Sequence[Link], batch: int, clips: slice = slice(None)) -> dict[str, Tensor]:
        """By path of the linears of ``links``, shares [groups, rows] of ``clips`` of a batch, one after the other."""
        paths = [path for link in links for path in link.linears if path in self.shares]
        chosen = range(batch * self.batch_size, (batch + 1) * self.batch_size)[clips]
        return {path: torch.cat(list(self.shares[path][chosen.start : chosen.stop]), dim=1) for path in paths}
