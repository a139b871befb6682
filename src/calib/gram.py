"""Gram matrices of inputs."""

from __future__ import annotations

from torch import Tensor

from src.models.products import product

_PANEL = 128  # columns computed at once, all from the diagonal down: of a wide matrix, half is left out


def add_lower_gram(G: Tensor, x: Tensor) -> None:
    """Adds ``x^T x`` of rows ``x`` [rows, in] to the lower triangle of ``G`` [in, in]; what is above is undefined."""
    columns = x.T.contiguous()
    for start in range(0, len(columns), _PANEL):
        stop = start + _PANEL
        G[start:, start:stop] += product(columns[start:], columns[start:stop])
