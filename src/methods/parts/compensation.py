"""The blocked column loop of GPTQ (arXiv 2210.17323, Algorithm 1) around any rule that rounds one column."""

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
    rest: Tensor, U: Tensor, ranges: Iterator[tuple[int, int]], round_column: Callable[[int, Tensor], Tensor]
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
    """
    for start, stop in ranges:
        errors = torch.empty_like(rest[start:stop])
        for j in range(start, stop):
            w = rest[j]
            q = round_column(j, w)
            error = torch.sub(w, q, out=errors[j - start]).div_(U[j, j])
            rest[j] = q
            rest[j + 1 : stop].addr_(U[j, j + 1 : stop], error, alpha=-1)
        rest[stop:].addmm_(U[start:stop, stop:].T, errors, alpha=-1)
