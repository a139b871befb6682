"""An orthogonal matrix applied on the fly, where no weight can absorb it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotation(nn.Module):
    """Multiplies the last axis of its input by ``Q = L (x) R`` from the right: ``x Q``.

    A Kronecker product of two small factors costs ``n (l + r)`` instead of ``n^2`` multiplications a row. An ``L`` that
    is the identity rotates every slice of width ``r`` alike: each head of an attention output, say.

    Args:
        right: ``R`` [r, r].
        left: ``L`` [l, l], or its size where it is the identity.
    """

    right: Tensor
    left: Tensor | None

    def __init__(self, right: Tensor, left: Tensor | int = 1) -> None:
        super().__init__()
        self.slices = left if isinstance(left, int) else left.shape[0]
        self.register_buffer("right", right)
        self.register_buffer("left", None if isinstance(left, int) else left)

    def forward(self, x: Tensor) -> Tensor:
        """Rotated ``x`` [..., l r]."""
        rotated = x.view(*x.shape[:-1], self.slices, self.right.shape[0]) @ self.right
        if self.left is not None:
            rotated = self.left.T @ rotated
        return rotated.reshape(x.shape)

    def matrix(self) -> Tensor:
        """``Q`` [l r, l r], in full."""
        left = torch.eye(self.slices, dtype=self.right.dtype, device=self.right.device)
        return torch.kron(left if self.left is None else self.left, self.right)
