"""A small problem for learned rotations; the golden files were made with the same recipe."""

from __future__ import annotations

import torch
from torch import Tensor

from src.quant.fake import fake_quantize_tokens

SIZE, ROWS, TOKENS, BITS = 32, 48, 128, 4
LR, STEPS = 1.5, 100


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A weight [ROWS, SIZE], inputs [TOKENS, SIZE] with two outlier channels, and an orthogonal matrix; float64."""
    generator = torch.Generator().manual_seed(seed)
    W, X, A = (torch.randn(n, SIZE, generator=generator, dtype=torch.float64) for n in (ROWS, TOKENS, SIZE))
    X[:, [3, 17]] *= 20
    return W, X, torch.linalg.qr(A)[0]


def gradients(seed: int, count: int) -> list[Tensor]:
    """Arbitrary gradients [SIZE, SIZE]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) for _ in range(count)]


def objective(R: Tensor, W: Tensor, X: Tensor) -> Tensor:
    """Relative output error, in percent, with rotated, rounded weights and inputs; rounding passes gradients."""
    x, w = (each @ R + (_rounded(each @ R) - each @ R).detach() for each in (X, W))
    Y = X @ W.T
    return 100 * (x @ w.T - Y).square().sum() / Y.square().sum()


def identity() -> Tensor:
    """Where learning starts: the outliers are as they were."""
    return torch.eye(SIZE, dtype=torch.float64)


def _rounded(x: Tensor) -> Tensor:
    return fake_quantize_tokens(x.detach(), BITS)
