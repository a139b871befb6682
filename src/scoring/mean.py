"""The unweighted mean of the word error rates on several test sets, the Open ASR leaderboard's composite."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from src.scoring.bootstrap import against_zero, resampled_rates
from src.scoring.rates import mean_rates
from src.scoring.wer import WerResult


def mean_scores(
    own: Sequence[WerResult],
    fp: Sequence[WerResult],
    labels: Sequence[Sequence[Hashable]],
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Mean error rates of a system, and how its mean WER differs from full precision's.

    Every set counts the same, however many words it has. A resample of the bootstrap draws each set anew, independently
    of the others, so that the interval tells what the choice of utterances does to the mean, not what the choice of
    sets does.

    Args:
        own: the system's scores, one a set.
        fp: those of full precision, on the same utterances.
        labels: the block of each utterance of each set; see :func:`~src.scoring.bootstrap.resampled_rates`.
        samples: number of resamples.
        seed: of the draws.

    Returns:
        ``cer``, ``fp_wer``, the rates of :mod:`src.metrics` with their 95 % intervals, and ``versus_fp``, the paired
        difference of the WER with its interval and its two-sided p-value; rates in percent.
    """
    return {
        "cer": float(np.mean([each.cer for each in own])),
        "fp_wer": float(np.mean([each.wer for each in fp])),
        **mean_rates([each.rates for each in own], labels, samples, _seeds(seed, len(own))),
        "versus_fp": mean_difference([own], [fp], labels, samples, seed),
    }


def mean_difference(
    own: Sequence[Sequence[WerResult]],
    base: Sequence[Sequence[WerResult]],
    labels: Sequence[Sequence[Hashable]],
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Mean WER of one system minus another's over the same test sets, as by :func:`mean_scores`, in points.

    Args:
        own: the scores of a system's runs, e.g. of its seeds, each one a set; their rates are averaged.
        base: likewise of the other system.
        labels, samples, seed: as for :func:`mean_scores`.

    Returns:
        ``difference``, its interval, p-value and significance.
    """
    means = np.zeros((2, samples))
    for number, drawn in enumerate(_seeds(seed, len(labels))):
        runs = [[run[number] for run in system] for system in (own, base)]
        errors = [run.utterance_errors for system in runs for run in system]
        rates = resampled_rates(errors, runs[0][0].utterance_words, samples, drawn, labels[number])
        means += np.stack([rates[: len(own)].mean(axis=0), rates[len(own) :].mean(axis=0)]) / len(labels)
    wers = [float(np.mean([each.wer for run in system for each in run])) for system in (own, base)]
    return {"difference": wers[0] - wers[1], **against_zero(means[0] - means[1])}


def _seeds(seed: int, sets: int) -> list[int]:
    """One of its own for each set; equal ones would draw sets of one size alike."""
    return [int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) for number in range(sets)]
