"""A weight quantized between a scale and its inverse, and candidate scales to choose from by the error it causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.quant.grid import round_to_nearest

Candidate = TypeVar("Candidate")

SMALLEST = 1e-4  # of a candidate before it is normalised, as in the AWQ authors' code


def scaled_and_rounded(W: Tensor, s: Tensor, spec: WeightSpec, scale_dtype: torch.dtype = torch.float16) -> Tensor:
    """``Q(W diag(s)) diag(s)^-1`` [out, in] in float32, for ``W`` [out, in], ``s`` [in] and round-to-nearest ``Q``."""
    s = s.float()
    return round_to_nearest(W.float() * s, spec, scale_dtype=scale_dtype).dequantize() / s


def activation_aware_scales(
    abs_mean: Tensor, steps: int, weight_mean: Tensor | None = None, exponents: Sequence[float] | None = None
) -> list[Tensor]:
    """Candidates ``s = mean|X|^r`` for ``r`` = 0, 1/steps ... (steps - 1)/steps, eq. (5) of AWQ.

    Each is divided by the root of its largest times its smallest entry, as in the authors' code. With ``weight_mean``,
    ``s = mean|X|^r / mean|W|^(1 - r)``.

    Args:
        abs_mean: mean magnitude of each input channel, [in].
        steps: number of candidates.
        weight_mean: see :func:`relative_weight_means`, [in].
        exponents: values of ``r`` to use instead.
    """
    candidates = []
    for r in exponents or [step / steps for step in range(steps)]:
        s = abs_mean.float().pow(r)
        if weight_mean is not None:
            s = s / (weight_mean.pow(1 - r) + SMALLEST)
        s = s.clamp(min=SMALLEST)
        candidates.append(s / (s.max() * s.min()).sqrt())
    return candidates


def relative_weight_means(weights: Sequence[Tensor], spec: WeightSpec) -> Tensor:
    """Mean over all rows of ``|w|`` over the largest in its group, [in], for weights [out, in] of one link."""
    W = torch.cat([weight.detach().float() for weight in weights]).abs()
    groups = W.view(len(W), -1, spec.columns_per_group(W.shape[1]))
    return (groups / groups.amax(2, keepdim=True).clamp(min=torch.finfo(W.dtype).tiny)).view(W.shape).mean(0)


def limiting_scales(abs_max: Tensor, floor: float, steps: int, widest_step: float) -> list[Tensor]:
    """Candidates ``s_j = max(1, max|X_j| / t)`` for thresholds ``t`` from the largest activation down to ``floor``.

    Eq. (8) of Outlier Suppression+ with its one-dimensional grid: ``t`` falls in ``steps`` equal steps, or in more so
    that none is wider than ``widest_step``. The first candidate is all ones.

    Args:
        abs_max: largest magnitude of each (shifted) channel, [in].
        floor: smallest threshold; above the largest activation, nothing is left to search.
        steps: least number of steps.
        widest_step: largest distance of two thresholds.
    """
    top = float(abs_max.max())
    if top <= floor:
        return [torch.ones_like(abs_max)]
    count = max(steps, int(top / widest_step))
    thresholds = [top - step * (top - floor) / count for step in range(count + 1)]
    return [(abs_max / torch.tensor(threshold).to(abs_max)).clamp(min=1.0) for threshold in thresholds]


def gram_losses(
    weights: Sequence[tuple[Tensor, WeightSpec]], H: Tensor, count: int, candidates: Sequence[Tensor]
) -> list[float]:
    """``||(W - Q(W diag(s)) diag(s)^-1) X||^2`` a row of ``X``, summed over weights, for each candidate ``s`` [in].

    Args:
        weights: each [out, in], with its grid.
        H: Gram matrix ``X^T X`` [in, in].
        count: rows of ``X``.
        candidates: scales.
    """
    return [sum(_gram_loss(W, spec, H, s) for W, spec in weights) / count for s in candidates]


def _gram_loss(W: Tensor, spec: WeightSpec, H: Tensor, s: Tensor) -> float:
    D = scaled_and_rounded(W, s, spec).sub_(W)
    return float(torch.linalg.vecdot(D @ H, D).sum(dtype=torch.float64))


def best(candidates: Sequence[Candidate], losses: Sequence[float]) -> Candidate:
    """The candidate with the least loss; the first of several."""
    return candidates[min(range(len(losses)), key=losses.__getitem__)]
