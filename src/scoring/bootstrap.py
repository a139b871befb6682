"""How far a pooled error rate, or the difference of two, may move with the choice of test data.

The bootstrap of Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation"
(ICASSP 2004): utterances are drawn with replacement, and the pooled rate is computed on each draw. Utterances of one
speaker succeed and fail together; where speakers are known, whole speakers are drawn instead, the blockwise bootstrap
of Liu and Peng, "Statistical testing on ASR performance via blockwise bootstrap" (arXiv 1912.09508).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.machine.progress import progress

# With fewer blocks the paired test raises more false alarms than over utterances (in simulation, 22 against 15 % at 3
# speakers). Intervals stay too narrow below some 30 (Cameron et al., doi 10.1162/rest.90.3.414): 83 % cover at 5.
FEWEST_SPEAKERS: Final = 5

_PERCENTILES: Final = (2.5, 97.5)
_CELLS: Final = 2_000_000  # entries of a matrix of draws, which bounds the memory

Totals = NDArray[np.int64]


@dataclass(frozen=True)
class PairedDifference:
    """WER of system a minus WER of system b on the same utterances, in percentage points, and its effect size.

    Attributes:
        difference: on the test set as it is; negative where a is better.
        low: lower end of its 95% interval.
        high: upper end of its 95% interval.
        p_value: two-sided, of no difference.
        significant: whether the interval leaves out zero.
        relative: the difference in percent of b's WER; negative is the field's relative WER reduction. None where b
            makes no error.
        relative_low: lower end of its 95% interval; None where b makes no error on some resample.
        relative_high: upper end, likewise.
        improvement_probability: Bisani and Ney's "probability of improvement": share of resamples in which a
            makes fewer errors than b. Ties count half, so that equal systems have 0.5.
    """

    difference: float
    low: float
    high: float
    p_value: float
    significant: bool
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    improvement_probability: float


@dataclass(frozen=True)
class Blocks:
    """What a resample draws.

    Attributes:
        unit: ``speaker`` or ``utterance``, as the record says it.
        speakers: number of different speakers known.
        labels: the block of each utterance.
    """

    unit: str
    speakers: int
    labels: tuple[Hashable, ...]


def blocks(ids: Sequence[str], speakers: Sequence[str | None]) -> Blocks:
    """Speakers where at least :data:`FEWEST_SPEAKERS` are known, with unattributed utterances alone; else utterances.

    Args:
        ids: of the utterances, each unique.
        speakers: who speaks each, or None.
    """
    known = len({speaker for speaker in speakers if speaker is not None})
    if known < FEWEST_SPEAKERS:
        return Blocks("utterance", known, tuple(ids))
    pairs = zip(ids, speakers, strict=True)
    labels = tuple(("utterance", name) if speaker is None else ("speaker", speaker) for name, speaker in pairs)
    return Blocks("speaker", known, labels)


def resampled_rates(
    errors: Sequence[ArrayLike], words: ArrayLike, samples: int, seed: int, labels: Sequence[Hashable] | None = None
) -> NDArray[np.float64]:
    """Pooled error rates in percent of several systems, all on the same resamples: ``[systems, samples]``.

    NaN on resamples without a word: not every utterance has every kind of word.

    Args:
        errors: word errors per utterance, ``[utterances]``, of each system.
        words: reference words per utterance, ``[utterances]``.
        samples: number of resamples.
        seed: of the draws.
        labels: the block of each utterance; blocks are drawn whole. Without, each utterance is its own.
    """
    totals = _resampled_totals(_pooled(_table(words, *errors, fewest=0), labels), samples, seed)
    with np.errstate(invalid="ignore"):
        rates: NDArray[np.float64] = 100.0 * totals[:, 1:].T / totals[:, :1].T
    return rates


def paired(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    samples: int,
    seed: int,
    labels: Sequence[Hashable] | None = None,
) -> PairedDifference:
    """Difference of two systems' pooled WERs, both computed on the same resamples.

    Arguments as in :func:`resampled_rates`; every utterance has at least one word.
    """
    table = _pooled(_table(words, errors_a, errors_b), labels)
    words_drawn, a, b = _resampled_totals(table, samples, seed).T
    observed_words, observed_a, observed_b = (int(total) for total in table.sum(axis=0))
    margins = a - b
    fewer, more = int((margins < 0).sum()), int((margins > 0).sum())
    relative_low, relative_high = percentiles(100.0 * margins / b) if b.all() else (None, None)
    return PairedDifference(
        difference=100.0 * (observed_a - observed_b) / observed_words,
        **against_zero(100.0 * margins / words_drawn),
        relative=100.0 * (observed_a - observed_b) / observed_b if observed_b else None,
        relative_low=relative_low,
        relative_high=relative_high,
        improvement_probability=(fewer + (samples - fewer - more) / 2) / samples,
    )


def against_zero(differences: NDArray[np.float64]) -> dict[str, Any]:
    """Interval, p-value and significance of a difference from those on resamples, by the names of its fields.

    The p-value is twice the smaller share of resamples in which the difference is at most, or at least, zero (the
    observed set counted as one more resample, so it is never 0).
    """
    low, high = percentiles(differences)
    fewest = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2.0 * (fewest + 1) / (len(differences) + 1))
    return {"low": low, "high": high, "p_value": p_value, "significant": not low <= 0 <= high}


def percentiles(rates: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the 95 % interval."""
    low, high = np.percentile(rates, _PERCENTILES)
    return float(low), float(high)


def _table(words: ArrayLike, *errors: ArrayLike, fewest: int = 1) -> Totals:
    """Columns words, at least ``fewest`` each, errors of a, errors of b: ``[utterances, 2 or 3]``."""
    columns = [np.asarray(column, dtype=np.int64) for column in (words, *errors)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1 or not len(columns[0]):
        raise ValueError(f"counts must be lists of one length, at least 1; got {[c.shape for c in columns]}")
    if columns[0].min() < fewest or min(column.min() for column in columns) < 0:
        raise ValueError("every utterance needs at least one reference word and no negative count")
    return np.stack(columns, axis=1)


def _pooled(table: Totals, labels: Sequence[Hashable] | None) -> Totals:
    """Sums of the rows of each block, in the order in which blocks first occur: ``[blocks, columns]``."""
    if labels is None:
        return table
    if len(labels) != len(table):
        raise ValueError(f"{len(labels)} labels cannot be those of {len(table)} utterances")
    rows = {label: row for row, label in enumerate(dict.fromkeys(labels))}
    sums = np.zeros((len(rows), table.shape[1]), dtype=np.int64)
    np.add.at(sums, [rows[label] for label in labels], table)
    return sums


def _resampled_totals(table: Totals, samples: int, seed: int) -> Totals:
    """Column sums of each resample of the table's rows: ``[samples, columns]``."""
    random = np.random.default_rng(seed)
    rows = len(table)
    step = max(1, _CELLS // rows)
    totals = np.empty((samples, table.shape[1]), dtype=np.int64)
    for start in progress(range(0, samples, step), f"bootstrap, {min(step, samples)} resamples at a time"):
        part = totals[start : start + step]
        drawn = random.integers(rows, size=(len(part), rows), dtype=np.int32)
        for column in range(table.shape[1]):
            part[:, column] = table[:, column][drawn].sum(axis=1)
    return totals
