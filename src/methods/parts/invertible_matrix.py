"""Invertible matrices that learn, in the form of their singular value decomposition.

As FlatQuant does (arXiv 2410.09426, app. B.1): orthogonal factors stay orthogonal by Cayley transforms, so that the
inverse costs nothing and the condition is that of the diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 1e-2  # singular value; they start at 1


class Invertible(NamedTuple):
    """A matrix [n, n], and the transpose of its inverse."""

    matrix: Tensor
    undo: Tensor


class InvertibleMatrix:
    """``P = U diag(d) V^T``, ``U`` and ``V`` orthogonal, ``d`` positive.

    Args:
        U: where the left factor starts, [n, n].
        V: where the right factor starts, [n, n].
    """

    def __init__(self, U: Tensor, V: Tensor) -> None:
        self._start = U, V
        self.skew = torch.zeros_like(U).requires_grad_(), torch.zeros_like(V).requires_grad_()
        self.d = U.new_ones(len(U)).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.skew, self.d]

    def __call__(self) -> Invertible:
        """``P`` and ``P^-T = U diag(1 / d) V^T``, differentiable."""
        U, V = (cayley(skew) @ start for skew, start in zip(self.skew, self._start, strict=True))
        return Invertible((U * self.d) @ V.T, (U / self.d) @ V.T)

    @torch.no_grad()
    def truncate(self) -> None:
        """Keeps singular values away from 0."""
        self.d.clamp_(min=SMALLEST)


def cayley(X: Tensor) -> Tensor:
    """``(I - A / 2)^-1 (I + A / 2)``, orthogonal, with ``A = tril(X) - tril(X)^T``, for ``X`` [n, n]."""
    lower = X.tril(-1)
    half = (lower - lower.T) / 2
    identity = torch.eye(len(X), dtype=X.dtype, device=X.device)
    Q: Tensor = torch.linalg.solve(identity - half, identity + half)
    return Q
