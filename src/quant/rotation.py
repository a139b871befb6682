"""A matrix applied on the fly, where no weight can absorb it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotation(nn.Module):
    """Multiplies the last axis of its input by ``Q = L (x) R`` from the right: ``x Q``.

    A Kronecker product of two small factors costs ``n (l + r)`` instead of ``n^2`` multiplications a row. A factor that
    is the identity costs nothing: without ``L`` every slice of width ``r`` is rotated alike (each head of an attention
    output, say), without ``R`` the slices are mixed (the heads with each other). Factors are orthogonal but where the
    rotation enters the residual stream, where ``R`` also subtracts the mean (:mod:`src.methods.parts.rotate`), and in
    FlatQuant, whose factors are any invertible ones (:mod:`src.methods.parts.affine_link`).

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
        right = self.width if self.right is None else self.right
        return times(x, right, self.slices if self.left is None else self.left)

    def undo(self, x: Tensor) -> Tensor:
        """``x Q^T`` for ``x`` [..., l r]: the inverse, where the factors are orthogonal."""
        right = self.width if self.right is None else self.right.T
        return times(x, right, self.slices if self.left is None else self.left.T)

    def matrix(self) -> Tensor:
        """``Q`` [l r, l r], in full."""
        stored = next(self.buffers(), torch.ones(1))
        left = torch.eye(self.slices, dtype=stored.dtype, device=stored.device) if self.left is None else self.left
        right = torch.eye(self.width, dtype=stored.dtype, device=stored.device) if self.right is None else self.right
        return torch.kron(left.contiguous(), right.contiguous())

    def extra_repr(self) -> str:
        """Sizes of the factors, shown by ``print(model)``."""
        return f"{self.slices} x {self.width}"


def times(x: Tensor, right: Tensor | int, left: Tensor | int = 1) -> Tensor:
    """``x (L (x) R)`` for ``x`` [..., l r], computed in the factors' type; a factor's size means the identity."""
    product = x.reshape(*x.shape[:-1], _size(left), _size(right))
    if isinstance(right, Tensor):
        product = product.to(right.dtype) @ right
    if isinstance(left, Tensor):
        product = left.T @ product.to(left.dtype)
    return product.flatten(-2).to(x.dtype)


def _size(factor: Tensor | int) -> int:
    return factor if isinstance(factor, int) else factor.shape[0]
