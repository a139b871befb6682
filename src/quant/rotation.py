"""A matrix applied on the fly, where no weight can absorb it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotation(nn.Module):
    """Multiplies the last axis of its input by ``Q = L (x) R`` from the right: ``x Q``.

    A Kronecker product of two small factors costs ``n (l + r)`` instead of ``n^2`` multiplications a row. A factor that
    is the identity costs nothing: without ``L`` every slice of width ``r`` is rotated alike (each head of an attention
    output, say), without ``R`` the slices are mixed (the heads with each other). Factors are orthogonal but where the
    rotation enters the residual stream: there ``R`` also subtracts the mean, see :mod:`src.methods.parts.rotate`.

    Args:
        right: ``R`` [r, r], or its size where it is the identity.
        left: ``L`` [l, l], or its size where it is the identity.
    """

    right: Tensor | None
    left: Tensor | None

    def __init__(self, right: Tensor | int, left: Tensor | int = 1) -> None:
        super().__init__()
        self.width, self.slices = _size(right), _size(left)
        self.register_buffer("right", None if isinstance(right, int) else right)
        self.register_buffer("left", None if isinstance(left, int) else left)

    def forward(self, x: Tensor) -> Tensor:
        """``x Q`` for ``x`` [..., l r]."""
        return self._apply_factors(x, self.left, self.right)

    def undo(self, x: Tensor) -> Tensor:
        """``x Q^T`` for ``x`` [..., l r]: the inverse, where the factors are orthogonal."""
        left = None if self.left is None else self.left.T
        return self._apply_factors(x, left, None if self.right is None else self.right.T)

    def _apply_factors(self, x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
        rotated = x.reshape(*x.shape[:-1], self.slices, self.width)
        factor = left if right is None else right
        if factor is not None:
            rotated = rotated.to(factor.dtype)
        if right is not None:
            rotated = rotated @ right
        if left is not None:
            rotated = left.T @ rotated
        return rotated.flatten(-2).to(x.dtype)

    def matrix(self) -> Tensor:
        """``Q`` [l r, l r], in full."""
        stored = next(self.buffers(), torch.ones(1))
        left = torch.eye(self.slices, dtype=stored.dtype, device=stored.device) if self.left is None else self.left
        right = torch.eye(self.width, dtype=stored.dtype, device=stored.device) if self.right is None else self.right
        return torch.kron(left.contiguous(), right.contiguous())

    def extra_repr(self) -> str:
        """Sizes of the factors, shown by ``print(model)``."""
        return f"{self.slices} x {self.width}"


def _size(factor: Tensor | int) -> int:
    return factor if isinstance(factor, int) else factor.shape[0]
