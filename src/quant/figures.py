"""What one weight, and what it reads, look like to a quantizer, and what rounding did: the figures of the layer table.

All from sufficient statistics: no figure needs the inputs themselves.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from src.quant.loss import relative_output_error

if TYPE_CHECKING:
    from src.quant.link_statistics import LinkStatistics

OUTLIER_DEVIATIONS = 6.0
_ROWS_AT_ONCE = 1024  # summed in float32


@dataclass(frozen=True)
class Distribution:
    """Shape of a tensor's distribution, over all its elements.

    Attributes:
        kurtosis: excess kurtosis ``E(x - m)^4 / (E(x - m)^2)^2 - 3``: 0 for a normal distribution, 3 for a Laplace
            distribution, -1.2 for a uniform one. Heavy tails widen a min-max grid for the many values near the middle.
        peak: largest magnitude over mean magnitude, ``max |x| / mean |x|``: how much of the grid the typical value
            leaves unused. 2 for a uniform distribution around 0; it grows with the number of elements.
        outlier_channels: input channels (columns) with an element that lies more than six standard deviations of the
            whole tensor from its mean: the outliers of Bondarenko, Nagel and Blankevoort (arXiv 2109.12948 and
            2306.12929). A normal distribution has two such elements in 10^9.
    """

    kurtosis: float
    peak: float
    outlier_channels: int


def weight_figures(W: Tensor, Q: Tensor, gram: Tensor | None = None) -> dict[str, Any]:
    """Figures of ``W`` [out, in] rounded to ``Q``: errors relative to the norm, signal to noise in dB, distribution.

    Those of the output need the Gram matrix [in, in] of the inputs, and are None without it.
    """
    weight_error = float(torch.linalg.norm(W - Q) / torch.linalg.norm(W))
    output_error = None if gram is None else relative_output_error(W, Q, gram)
    return {
        "weight_error": weight_error,
        "output_error": output_error,
        "weight_sqnr_db": sqnr_db(weight_error),
        "output_sqnr_db": sqnr_db(output_error),
        "weight_distribution": asdict(tensor_distribution(W)),
    }


def sqnr_db(relative_error: float | None) -> float | None:
    """Signal to quantization noise, ``10 lg(|x|^2 / |x - q|^2) = -20 lg(|x - q| / |x|)``.

    None where there is no noise, which would be infinite, or where the error is not known.
    """
    return None if not relative_error else -20 * math.log10(relative_error)


def tensor_distribution(W: Tensor) -> Distribution:
    """Of a tensor [rows, channels] at hand."""
    x = W.float()
    return _distribution(power_sums(x) / len(x), x.amin(0), x.amax(0), x.abs().mean(0))


def power_sums(x: Tensor) -> Tensor:
    """Sums over rows ``x`` [rows, channels] of ``x``, ``x^2``, ``x^3`` and ``x^4``: float64 [4, channels]."""
    sums = torch.zeros(4, x.shape[1], dtype=torch.float64, device=x.device)
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = x[start : start + _ROWS_AT_ONCE]
        square = rows.square()
        for power, values in enumerate((rows, square, square * rows, square.square())):
            sums[power] += values.sum(dim=0)
    return sums


def input_distribution(statistics: LinkStatistics | None) -> Distribution | None:
    """Of a link's input, from statistics by channel; None where these were not collected."""
    if statistics is None or statistics.powers is None:
        return None
    low, high, mean = statistics.minimum, statistics.maximum, statistics.abs_mean
    if low is None or high is None or mean is None:
        return None
    return _distribution(statistics.powers, low, high, mean)


def _distribution(powers: Tensor, low: Tensor, high: Tensor, abs_mean: Tensor) -> Distribution:
    """From the means of ``x``, ``x^2``, ``x^3``, ``x^4`` [4, channels], extremes and mean magnitudes [channels].

    All channels have equally many elements, so means over the tensor are means over channels.
    """
    m1, m2, m3, m4 = powers.double().mean(1).tolist()
    variance = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    peak, typical = float(torch.maximum(high, -low).max()), float(abs_mean.double().mean())
    bound = OUTLIER_DEVIATIONS * math.sqrt(max(variance, 0.0))
    outlying = (high.double() > m1 + bound) | (low.double() < m1 - bound)
    return Distribution(
        kurtosis=fourth / variance**2 - 3 if variance > 0 else 0.0,
        peak=peak / typical if typical > 0 else 0.0,
        outlier_channels=int(outlying.sum()) if variance > 0 else 0,
    )
