"""Gram matrices of inputs, and cross-Gram matrices of what rounding their producers has changed in them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from src.models.products import product
from src.quant.link_statistics import Grams

_PANEL = 128  # columns computed at once, all from the diagonal down: of a wide matrix, half is left out


def add_lower_gram(G: Tensor, x: Tensor) -> None:
    """Adds ``x^T x`` of rows ``x`` [rows, in] to the lower triangle of ``G`` [in, in]; what is above is undefined."""
    columns = x.T.contiguous()
    for start in range(0, len(columns), _PANEL):
        stop = start + _PANEL
        G[start:, start:stop] += product(columns[start:], columns[start:stop])


class RunningGrams:
    """Accumulates ``H = X^T X`` [in, in] and, where ``cross`` asks for it, ``C = (X_fp - X)^T X`` over rows."""

    def __init__(self, width: int, *, cross: bool, device: torch.device) -> None:
        self._lower = torch.zeros(width, width, device=device)
        self._cross = torch.zeros(width, width, device=device) if cross else None

    def add(self, x: Tensor, unrounded: Tensor | None, weights: Tensor | None) -> None:
        """Adds rows ``x`` and, for ``C``, ``unrounded`` (``X_fp``) [rows, in], both times ``weights`` [rows] if any."""
        weighted = x if weights is None else x * weights.unsqueeze(1)
        add_lower_gram(self._lower, weighted)
        if self._cross is not None:
            if unrounded is None:
                raise ValueError("a cross-Gram matrix needs the rows of the model that is not rounded")
            change = unrounded - x if weights is None else (unrounded - x) * weights.unsqueeze(1)
            self._cross += product(change.T.contiguous(), weighted.T.contiguous())

    @property
    def trace(self) -> float:
        """Of ``H``: the sum of the squares of all inputs."""
        return float(self._lower.diagonal().sum(dtype=torch.float64))

    def finish(self) -> Grams:
        """``H``, and ``C`` where it was asked for."""
        return Grams(self._lower.tril() + self._lower.tril(-1).T, self._cross)

    def balanced(self, rare: RunningGrams) -> Grams:
        """Likewise, of these rows and of ``rare`` ones, whose matrices are scaled so that their ``H`` has this trace.

        ``H_common + lambda H_rare`` with ``lambda = tr(H_common) / tr(H_rare)``: rareBAL of TARQ (arXiv 2605.27808).
        Where either trace is zero, both count as they are.
        """
        factor = self.trace / rare.trace if self.trace and rare.trace else 1.0
        (H, C), (of_rare, cross_of_rare) = self.finish(), rare.finish()
        cross = None if C is None or cross_of_rare is None else C + factor * cross_of_rare
        return Grams(H + factor * of_rare, cross)


class BalancedGrams:
    """:class:`RunningGrams` of rows of which some are rare: these count together as much as all others.

    Rows of no weight cost nothing.
    """

    def __init__(self, width: int, *, cross: bool, device: torch.device) -> None:
        self._new = partial(RunningGrams, width, cross=cross, device=device)
        self._common = self._new()
        self._rare: RunningGrams | None = None  # made when the first rare row comes

    def add(self, x: Tensor, unrounded: Tensor | None, weights: Tensor | None, rare: Tensor | None) -> None:
        """Adds rows; see :meth:`RunningGrams.add`. ``rare`` is bool [rows], or None where none is."""
        counts = torch.ones(len(x), dtype=torch.bool, device=x.device) if weights is None else weights > 0
        is_rare = torch.zeros_like(counts) if rare is None else rare
        self._add(self._common, counts & ~is_rare, x, unrounded, weights)
        if rare is not None and rare.any():
            self._rare = self._rare or self._new()
            self._add(self._rare, counts & rare, x, unrounded, weights)

    @staticmethod
    def _add(grams: RunningGrams, chosen: Tensor, x: Tensor, unrounded: Tensor | None, weights: Tensor | None) -> None:
        if chosen.all():
            grams.add(x, unrounded, weights)
        elif chosen.any():
            grams.add(x[chosen], *(None if each is None else each[chosen] for each in (unrounded, weights)))

    def finish(self) -> Grams:
        return self._common.finish() if self._rare is None else self._common.balanced(self._rare)
