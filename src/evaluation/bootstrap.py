"""How far a pooled error rate, or the difference of two, may move with the choice of test utterances.

The bootstrap of Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation"
(ICASSP 2004): utterances are drawn with replacement, and the pooled rate is computed on each draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_PERCENTILES: Final = (2.5, 97.5)
_CELLS: Final = 2_000_000  # entries of a matrix of draws, which bounds the memory


@dataclass(frozen=True)
class PairedDifference:
    """WER of system a minus WER of system b on the same utterances, in percentage points.

    Attributes:
        difference: on the test set as it is; negative where a is better.
        low: lower end of its 95% interval.
        high: upper end of its 95% interval.
        p_value: two-sided, of no difference.
    """

    difference: float
    low: float
    high: float
    p_value: float


def interval(errors: ArrayLike, words: ArrayLike, samples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of the pooled WER, in percent.

    Args:
        errors: word errors per utterance, ``[utterances]``.
        words: reference words per utterance, ``[utterances]``, each at least 1.
        samples: number of resamples.
        seed: of the draws.
    """
    totals = _resampled_totals(_table(words, errors), samples, seed)
    low, high = np.percentile(100.0 * totals[:, 1] / totals[:, 0], _PERCENTILES)
    return float(low), float(high)


def paired(errors_a: ArrayLike, errors_b: ArrayLike, words: ArrayLike, samples: int, seed: int) -> PairedDifference:
    """Difference of two systems' pooled WERs, both computed on the same resamples.

    The p-value is twice the smaller share of resamples in which the difference is at most, or at least, zero (the
    observed set counted as one more resample, so it is never 0).
    """
    table = _table(words, errors_a, errors_b)
    totals = _resampled_totals(table, samples, seed)
    margins = totals[:, 1] - totals[:, 2]
    low, high = np.percentile(100.0 * margins / totals[:, 0], _PERCENTILES)
    fewest = min(int((margins <= 0).sum()), int((margins >= 0).sum()))
    observed = table.sum(axis=0)
    return PairedDifference(
        difference=float(100.0 * (observed[1] - observed[2]) / observed[0]),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2.0 * (fewest + 1) / (samples + 1)),
    )


def _table(words: ArrayLike, *errors: ArrayLike) -> NDArray[np.int64]:
    """Columns words, errors of a, errors of b: ``[utterances, 2 or 3]``."""
    columns = [np.asarray(column, dtype=np.int64) for column in (words, *errors)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1 or not len(columns[0]):
        raise ValueError(f"counts must be lists of one length, at least 1; got {[c.shape for c in columns]}")
    if columns[0].min() < 1 or min(column.min() for column in columns) < 0:
        raise ValueError("every utterance needs at least one reference word and no negative count")
    return np.stack(columns, axis=1)


def _resampled_totals(table: NDArray[np.int64], samples: int, seed: int) -> NDArray[np.int64]:
    """Column sums of each resample of the table's rows: ``[samples, columns]``."""
    random = np.random.default_rng(seed)
    utterances = len(table)
    step = max(1, _CELLS // utterances)
    totals = np.empty((samples, table.shape[1]), dtype=np.int64)
    for start in range(0, samples, step):
        part = totals[start : start + step]
        drawn = random.integers(utterances, size=(len(part), utterances), dtype=np.int32)
        for column in range(table.shape[1]):
            part[:, column] = table[:, column][drawn].sum(axis=1)
    return totals


def resampled_rates(errors: Sequence[ArrayLike], words: ArrayLike, samples: int, seed: int) -> NDArray[np.float64]:
    """Pooled WERs in percent of several systems, all on the same resamples: ``[systems, samples]``.

    Args:
        errors: word errors per utterance of each system.
        words: reference words per utterance, ``[utterances]``, each at least 1.
        samples: number of resamples.
        seed: of the draws.
    """
    totals = _resampled_totals(_table(words, *errors), samples, seed)
    return 100.0 * totals[:, 1:].T / totals[:, :1].T
