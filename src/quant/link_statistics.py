"""What is known of the inputs of linears that read the same tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    """

    count: int
    gram: Tensor | None = None
    minimum: Tensor | None = None
    maximum: Tensor | None = None
    abs_mean: Tensor | None = None
    powers: Tensor | None = None
    cross_gram: Tensor | None = None

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
        return LinkStatistics(self.count, gram, minimum, maximum, abs_mean, powers, cross_gram)
