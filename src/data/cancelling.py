"""Whether the channels of a recording are of opposite phase, so that their mean loses what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_LEFT: Final = 0.25  # of the energy that channels which have nothing in common leave in their mean
_LOST: Final = 0.1  # share of the sound that may be in such half seconds


@dataclass
class Cancelling:
    """Adds up, in windows of half a second, how much of the channels' energy is lost in their mean.

    The mean of ``n`` channels without anything in common has the n-th part of their mean energy, one of equal channels
    all of it. A window counts as lost where a quarter of that part, or less, is left: with two channels at a
    correlation below -0.75. A channel that is silent, or recorded at another place, is far from it.
    """

    _energy: float = 0.0
    _lost: float = 0.0

    def add(self, channels: NDArray[np.float32], mono: NDArray[np.float32], rate: int) -> None:
        """Takes a block ``[frames, channels]`` of whole windows and its mean ``[frames]``."""
        if channels.shape[1] == 1:
            return
        starts = np.arange(0, len(mono), max(rate // 2, 1))
        with np.errstate(over="ignore", invalid="ignore"):
            whole = np.add.reduceat(np.square(channels).mean(axis=1), starts)
            left = np.add.reduceat(np.square(mono), starts) * channels.shape[1]
            self._energy += float(whole.sum())
            self._lost += float(whole[left < _LEFT * whole].sum())

    @property
    def lost(self) -> float:
        """Share of the sound that the mean loses; 0 where it is small enough."""
        return self._lost / self._energy if self._lost > _LOST * self._energy else 0.0
