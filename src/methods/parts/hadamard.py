"""Hadamard matrices of the sizes that speech models have, whole or as two Kronecker factors, and random rotations.

Sylvester's doubling on top of Paley's constructions reaches every width, MLP width and head size of the two families
(288 = 36 * 8, 384 = 12 * 32, 416 = 52 * 8, 1280 = 20 * 64 ...); nothing is tabulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from src.methods.parts.paley import paley


@dataclass(frozen=True, eq=False)
class Factors:
    """An orthogonal matrix ``L (x) R``; ``note`` says in words where it is not a Hadamard matrix."""

    left: Tensor
    right: Tensor
    note: str = ""


def hadamard(n: int) -> Tensor:
    """``H`` [n, n] of float64 ``+-1`` with ``H H^T = n I``.

    Raises:
        ValueError: neither Sylvester's nor Paley's constructions give this size.
    """
    base, doublings = _base(n)
    return torch.kron(base, _sylvester(doublings))


def has_hadamard(n: int) -> bool:
    """Whether :func:`hadamard` can construct this size."""
    try:
        _base(n)
    except ValueError:
        return False
    return True


def randomized_hadamard(n: int, generator: torch.Generator) -> Tensor:
    """``diag(s) H / sqrt(n)`` with random signs ``s``: orthogonal float64 [n, n] (QuaRot, arXiv 2404.00456, sec. 2).

    Raises:
        ValueError: as :func:`hadamard`.
    """
    signs = torch.randint(0, 2, (n, 1), generator=generator, dtype=torch.float64) * 2 - 1
    R: Tensor = signs * hadamard(n) / n**0.5
    return R


def random_orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix, float64 [n, n], from the uniform (Haar) distribution."""
    Q, R = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    uniform: Tensor = Q * R.diagonal().sign()
    return uniform.contiguous()


def random_rotation(n: int, generator: torch.Generator) -> tuple[Tensor, str]:
    """A randomised Hadamard matrix [n, n], or a random orthogonal one where there is none, which the note says."""
    if has_hadamard(n):
        return randomized_hadamard(n, generator), ""
    return random_orthogonal(n, generator), f"no Hadamard matrix of size {n}: a random orthogonal one is used"


def hadamard_factors(n: int, generator: torch.Generator) -> Factors:
    """``L (x) R``, orthogonal float64 of size ``n``, with factors of about equal size: cheap to apply on the fly.

    ``R`` is a Sylvester matrix, ``L`` what is left of a Hadamard matrix of size ``n``. Where there is none, the odd
    part of ``n`` is rotated by a random orthogonal matrix.
    """
    note = ""
    try:
        base, doublings = _base(n)
        base = base / len(base) ** 0.5
    except ValueError:
        doublings = (n & -n).bit_length() - 1
        odd = n >> doublings
        base = random_orthogonal(odd, generator)
        note = f"no Hadamard matrix of size {n}: the factor of size {odd} is a random orthogonal matrix"
    right = min(range(doublings + 1), key=lambda k: (len(base) << (doublings - k)) + (1 << k))
    left = torch.kron(base, _orthonormal_sylvester(doublings - right))
    return Factors(left, _orthonormal_sylvester(right), note)


def _base(n: int) -> tuple[Tensor, int]:
    """The smallest Hadamard matrix, of size 1 or Paley's, from which ``k`` doublings give size ``n``; and ``k``."""
    if n > 0:
        for doublings in range((n & -n).bit_length() - 1, -1, -1):
            size = n >> doublings
            base = torch.ones(1, 1, dtype=torch.float64) if size == 1 else paley(size)
            if base is not None:
                return base, doublings
    raise ValueError(f"no Hadamard matrix of size {n} can be constructed")


def _sylvester(doublings: int) -> Tensor:
    H = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(doublings):
        H = torch.cat([torch.cat([H, H], dim=1), torch.cat([H, -H], dim=1)])
    return H


def _orthonormal_sylvester(doublings: int) -> Tensor:
    return _sylvester(doublings) / 2 ** (doublings / 2)
