"""Paley's two constructions of Hadamard matrices, from the squares of a finite field.

R. E. A. C. Paley, *On Orthogonal Matrices*, J. Math. Phys. 12 (1933). With ``chi`` the quadratic character of GF(q),
the Jacobsthal matrix ``J_ab = chi(a - b)`` gives a Hadamard matrix of size ``q + 1`` where ``q = 3 (mod 4)`` and one of
size ``2 (q + 1)`` where ``q = 1 (mod 4)``.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

_LARGEST_DEGREE = 3  # a polynomial of degree 2 or 3 is irreducible where it has no root


def paley(n: int) -> Tensor | None:
    """A Hadamard matrix [n, n] of float64 ``+-1``, or None where neither construction gives this size."""
    if n % 4:
        return None
    if _field(n - 1):
        return _first(n - 1)
    if n // 2 % 4 == 2 and _field(n // 2 - 1):
        return _second(n // 2 - 1)
    return None


def _first(q: int) -> Tensor:
    """``I + S`` with ``S`` skew: ``q = 3 (mod 4)``."""
    S = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    S[0, 1:], S[1:, 0], S[1:, 1:] = 1, -1, jacobsthal(q)
    return S + torch.eye(q + 1, dtype=torch.float64)


def _second(q: int) -> Tensor:
    """``C (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]]`` with ``C`` symmetric: ``q = 1 (mod 4)``."""
    C = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    C[0, 1:], C[1:, 0], C[1:, 1:] = 1, 1, jacobsthal(q)
    of_ones = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64)
    of_diagonal = torch.tensor([[1, -1], [-1, -1]], dtype=torch.float64)
    return torch.kron(C, of_ones) + torch.kron(torch.eye(q + 1, dtype=torch.float64), of_diagonal)


def jacobsthal(q: int) -> Tensor:
    """``chi(a - b)`` for all elements ``a``, ``b`` of GF(q): float64 [q, q] of 0 on the diagonal, else ``+-1``.

    Raises:
        ValueError: ``q`` is not an odd prime, or its square or cube.
    """
    found = _field(q)
    if found is None:
        raise ValueError(f"{q} is not an odd prime, or its square or cube")
    p, degree = found
    place = p ** torch.arange(degree)
    elements = torch.arange(q)[:, None] // place % p  # [q, degree]: coefficients of a polynomial over GF(p)
    chi = torch.full((q,), -1.0, dtype=torch.float64)
    chi[(_squares(elements, p) * place).sum(-1)] = 1
    chi[0] = 0
    differences = (elements[:, None] - elements[None]) % p
    return chi[(differences * place).sum(-1)]


def _field(q: int) -> tuple[int, int] | None:
    """``(p, k)`` with ``q = p^k``, ``p`` an odd prime and ``k`` at most 3; None where there is no such pair."""
    if q < 3 or q % 2 == 0:
        return None
    p = next((factor for factor in range(3, int(q**0.5) + 1, 2) if q % factor == 0), q)
    return next(((p, k) for k in range(1, _LARGEST_DEGREE + 1) if p**k == q), None)


def _squares(elements: Tensor, p: int) -> Tensor:
    """Squares of polynomials ``elements`` [q, k], modulo ``p`` and an irreducible polynomial of degree ``k``."""
    degree = elements.shape[1]
    squares = torch.zeros(len(elements), 2 * degree - 1, dtype=torch.long)
    for i, j in product(range(degree), repeat=2):
        squares[:, i + j] += elements[:, i] * elements[:, j]
    if degree > 1:
        lower = torch.tensor(_irreducible(p, degree))  # x^degree = -lower(x)
        for power in range(2 * degree - 2, degree - 1, -1):
            squares[:, power - degree : power] -= squares[:, power, None] * lower
            squares %= p
    return squares[:, :degree] % p


def _irreducible(p: int, degree: int) -> tuple[int, ...]:
    """Coefficients below the leading one of a monic polynomial of degree 2 or 3 without a root in GF(p)."""
    for lower in product(range(p), repeat=degree):
        if all((x**degree + sum(c * x**i for i, c in enumerate(lower))) % p for x in range(p)):
            return lower
    raise ValueError(f"no irreducible polynomial of degree {degree} over GF({p})")
