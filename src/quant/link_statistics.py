"""What is known of the inputs of linears that read the same tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from src.models.graph import Linear


class Grams(NamedTuple):
    """``gram`` and, where it was asked for, ``cross_gram`` of :class:`LinkStatistics`, rows weighted in another way."""

    gram: Tensor
    cross_gram: Tensor | None

    def divided(self, s: Tensor) -> Grams:
        """Those of ``X diag(s)^-1``, for positive ``s`` [in]."""
        divisor = torch.outer(s, s)
        return Grams(self.gram / divisor, None if self.cross_gram is None else self.cross_gram / divisor)


@dataclass(frozen=True, eq=False)
class LinkStatistics:
    """Sufficient statistics of the tensor that a link's linears read, over all calibration rows.

    Attributes:
        count: rows (frames or tokens) seen.
        gram: ``H = X^T X`` [in, in] for rows ``X`` [count, in]; float32, a sum and not a mean.
        minimum: smallest value of each column, [in].
        maximum: largest value of each column, [in].
        abs_mean: mean magnitude of each column, [in].
        powers: means of ``x``, ``x^2``, ``x^3`` and ``x^4`` of each column, [4, in]; float64. They are what a kurtosis
            needs beside extremes and magnitudes.
        cross_gram: ``C = (X_fp - X)^T X`` [in, in], where ``X_fp`` [count, in] are the same rows in a model that is not
            rounded: what quantized predecessors did to the input. ``dX X^T`` of GPTAQ (arXiv 2504.02692), whose ``X``
            has a column a row of ours; float32, rows weighted and summed as in ``gram``.
        by_output: by linear path, matrices for each group of its output channels; the groups lie side by side, as
            :func:`torch.tensor_split` makes them. Empty where all outputs are told the same.
        linear: the one that is to be rounded by them; None where they are told of all of the link's.
    """

    count: int
    gram: Tensor | None = None
    minimum: Tensor | None = None
    maximum: Tensor | None = None
    abs_mean: Tensor | None = None
    powers: Tensor | None = None
    cross_gram: Tensor | None = None
    by_output: Mapping[str, tuple[Grams, ...]] = field(default_factory=dict)
    linear: Linear | None = None

    def of(self, linear: Linear) -> LinkStatistics:
        """What a rounder of ``linear``, one of the link's, is told."""
        return replace(self, linear=linear)

    def groups(self) -> list[LinkStatistics]:
        """What a rounder of each group of the linear's output channels is told.

        Raises:
            ValueError: outputs were not told apart.
        """
        if self.linear is None or self.linear.path not in self.by_output:
            raise ValueError("no Gram matrices of groups of output channels were collected")
        grams = self.by_output[self.linear.path]
        return [replace(self, gram=each.gram, cross_gram=each.cross_gram, by_output={}) for each in grams]

    @property
    def abs_max(self) -> Tensor:
        """Largest magnitude of each column, [in].

        Raises:
            ValueError: the extremes were not collected.
        """
        if self.minimum is None or self.maximum is None:
            raise ValueError("minimum and maximum were not collected")
        return torch.maximum(self.maximum, -self.minimum)

    def divided(self, s: Tensor) -> LinkStatistics:
        """The statistics of ``X diag(s)^-1`` (and ``X_fp diag(s)^-1``), for positive ``s`` [in]."""

        def over(tensor: Tensor | None, divisor: Tensor) -> Tensor | None:
            return None if tensor is None else tensor / divisor

        minimum, maximum, abs_mean = (over(each, s) for each in (self.minimum, self.maximum, self.abs_mean))
        powers = over(self.powers, torch.stack([s.double() ** k for k in (1, 2, 3, 4)]))
        gram, cross_gram = (over(each, torch.outer(s, s)) for each in (self.gram, self.cross_gram))
        by_output = {path: tuple(each.divided(s) for each in grams) for path, grams in self.by_output.items()}
        return LinkStatistics(self.count, gram, minimum, maximum, abs_mean, powers, cross_gram, by_output, self.linear)
