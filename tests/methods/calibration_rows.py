"""Correlated inputs as layers see them: mixed directions, columns of very different size."""

from __future__ import annotations

import torch
from torch import Tensor


def correlated(rows: int, columns: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """A weight [rows, columns] and inputs [samples, columns]; the golden files were made from the same recipe."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=generator) * 0.05
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    spread = torch.exp(0.5 * torch.randn(columns, generator=generator))
    return W, (torch.randn(samples, columns, generator=generator) @ mix) * spread
