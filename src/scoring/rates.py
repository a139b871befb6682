"""The rates of :mod:`src.metrics` over test sets, with their intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jiwer import WordOutput
from numpy.typing import NDArray

from src.metrics import RATES
from src.scoring.bootstrap import percentiles, resampled_rates
from src.text.normalizers import Rules

Ratio = tuple[NDArray[np.int64], NDArray[np.int64]]  # errors, and what they are errors of, each [utterances]


def counted(aligned: WordOutput, rules: Rules) -> dict[str, Ratio]:
    """Counts of every rate that the rules have, by name."""
    found = {metric.name: metric.counts(aligned, rules) for metric in RATES if metric.counts}
    return {
        name: (np.array(counts[0], dtype=np.int64), np.array(counts[1], dtype=np.int64))
        for name, counts in found.items()
        if counts is not None
    }


def mean_rates(
    sets: Sequence[Mapping[str, Ratio]], labels: Sequence[Sequence[Hashable]], samples: int, seeds: Sequence[int]
) -> dict[str, float | None]:
    """Every rate with its interval, in percent: unweighted means over test sets, of which there may be one.

    A rate is None where some set has nothing that it is a rate of, and its ends where a resample of some set has none.

    Args:
        sets: what :func:`counted` gives of each.
        labels: the block of each utterance of each set; see :func:`~src.scoring.bootstrap.resampled_rates`.
        samples: number of resamples.
        seeds: of the draws, one a set.
    """
    figures: dict[str, float | None] = {}
    for metric in RATES:
        mean, low, high = metric.described
        figures |= dict.fromkeys(metric.described)
        ratios = [each[metric.name] for each in sets if metric.name in each and each[metric.name][1].any()]
        if len(ratios) < len(sets):
            continue
        figures[mean] = float(np.mean([100.0 * (int(errors.sum()) / int(of.sum())) for errors, of in ratios]))
        drawn = np.zeros(samples)
        for (errors, of), seed, blocks in zip(ratios, seeds, labels, strict=True):
            drawn += resampled_rates([errors], of, samples, seed, blocks)[0] / len(sets)
        if np.isfinite(drawn).all():
            figures[low], figures[high] = percentiles(drawn)
    return figures
