"""Gradient steps on orthogonal matrices by the Cayley transform.

Li et al., *Efficient Riemannian Optimization on the Stiefel Manifold via the Cayley Transform* (arXiv 2002.01113),
Algorithm 1, without momentum, as SpinQuant (arXiv 2405.16406, eqs. 3-4) uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIXED_POINT_STEPS = 5  # as in SpinQuant's code; the paper that introduced the step takes 2
_EPSILON = 1e-8


def cayley_step(R: Tensor, G: Tensor, lr: float) -> Tensor:
    """One step from ``R`` against the gradient ``G``, both [n, n]; orthogonal only up to the fixed point's error.

    With ``X = R^T`` and ``M = -G^T``: ``What = M X^T - X (X^T M X^T) / 2``, ``W = What - What^T``, and the solution of
    ``Y = X + a W (X + Y) / 2`` is found by iteration, for the step length ``a = min(lr, 1 / ||W||_1)``.
    """
    R = R / (torch.linalg.vector_norm(R, dim=1, keepdim=True) + _EPSILON)
    X, M = R.T, -G.T
    MX = M @ R
    W_hat = MX - X @ (R @ MX) / 2
    W = W_hat - W_hat.T
    alpha = min(lr, 1 / (float(W.abs().sum(dim=0).max()) + _EPSILON))
    Y = X + alpha * M
    for _ in range(_FIXED_POINT_STEPS):
        Y = X + alpha * W @ (X + Y) / 2
    return Y.T


def retract(R: Tensor) -> Tensor:
    """The orthogonal factor of ``R``'s QR decomposition with a positive diagonal: for ``R`` close to orthogonal."""
    Q, upper = torch.linalg.qr(R.T)
    signed: Tensor = Q * upper.diagonal().sign()
    return signed.T
