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
    rates = np.zeros((2, samples))
    seeds = [_seed_of(seed, number) for number in range(len(own))]
    for scores, base, blocks, drawn in zip(own, fp, labels, seeds, strict=True):
        errors = (scores.utterance_errors, base.utterance_errors)
        rates += resampled_rates(errors, scores.utterance_words, samples, drawn, blocks) / len(own)
    wer, fp_wer = (float(np.mean([each.wer for each in scores])) for scores in (own, fp))
    return {
        "cer": float(np.mean([each.cer for each in own])),
        "fp_wer": fp_wer,
        **mean_rates([each.rates for each in own], labels, samples, seeds),
        "versus_fp": {"difference": wer - fp_wer, **against_zero(rates[0] - rates[1])},
    }


def _seed_of(seed: int, number: int) -> int:
    """A seed of its own for each set; equal ones would draw sets of one size alike."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
