"""The blocked column loop of GPTQ (arXiv 2210.17323, Algorithm 1) around any rule that rounds one column.

With it, GPTAQ's (arXiv 2504.02692, Algorithm 1), which differs by one product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def blocks(columns: int, size: int, block_size: int) -> Iterator[tuple[int, int]]:
    """Half-open column ranges of at most ``block_size`` that do not cross a multiple of ``size``."""
    for first in range(0, columns, size):
        last = min(first + size, columns)
        for start in range(first, last, block_size):
            yield start, min(start + block_size, last)


def round_columns(
    rest: Tensor,
    U: Tensor,
    ranges: Iterator[tuple[int, int]],
    round_column: Callable[[int, Tensor], Tensor],
    P: Tensor | None = None,
) -> None:
    """Rounds columns in order and lets the later ones make up for every error, eq. (2) of the paper.

    A rule that needs to look ahead, to fit the grid of a group it enters, may read ``rest``: at the start of a range
    all later columns hold all compensations.

    Args:
        rest: transposed weight [in, out], columns in rounding order; changed in place to the rounded weight. Columns
            after the last range are compensated but not rounded.
        U: upper Cholesky factor [in, in] of the inverse Hessian, in rounding order.
        ranges: consecutive half-open column ranges that start at 0.
        round_column: what the present value [out] of column ``j`` is rounded to.
        P: see :func:`propagation`, in rounding order: a column adds ``P[j]`` times its present value to the later ones.
            None is zero.
    """
    for start, stop in ranges:
        errors = torch.empty_like(rest[start:stop])
        for j in range(start, stop):
            w = rest[j]
            q = round_column(j, w)
            error = torch.sub(w, q, out=errors[j - start]).div_(U[j, j])
            if P is not None:
                rest[j + 1 : stop].addr_(P[j, j + 1 : stop], w)
            rest[j] = q
            rest[j + 1 : stop].addr_(U[j, j + 1 : stop], error, alpha=-1)
        if P is not None:
            values = rest[start:stop] + errors * U.diagonal()[start:stop, None]  # as they were before rounding
            rest[stop:].addmm_(P[start:stop, stop:].T, values)
        rest[stop:].addmm_(U[start:stop, stop:].T, errors, alpha=-1)


def propagation(C: Tensor, U: Tensor) -> Tensor:
    """``P = striu(C U^T) U`` of GPTAQ (arXiv 2504.02692, Algorithm 1), strictly upper triangular [in, in].

    ``w_j P[j]`` is what the columns after ``j`` change by to make up for an ``X_j`` that is not as at full precision.

    Args:
        C: cross-Gram matrix ``(X_fp - X) X^T`` [in, in], in rounding order.
        U: see :func:`round_columns`.
    """
    return (C @ U.T).triu_(1) @ U
