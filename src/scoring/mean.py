"""The unweighted mean of the word error rates on several test sets, the Open ASR leaderboard's composite."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.scoring.bootstrap import resampled_rates
from src.scoring.wer import WerResult

_PERCENTILES = (2.5, 97.5)


def mean_scores(
    own: Sequence[WerResult],
    fp: Sequence[WerResult],
    labels: Sequence[Sequence[Hashable]],
    samples: int,
    seed: int,
) -> dict[str, float | dict[str, float | bool]]:
    """Mean WER and CER of a system, and how its mean WER differs from full precision's.

    Every set counts the same, however many words it has. A resample of the bootstrap draws each set anew, independently
    of the others, so that the interval tells what the choice of utterances does to the mean, not what the choice of
    sets does.

    Args:
        own: the system's scores, one a set.
        fp: those of full precision, on the same utterances.
        labels: the block of each utterance of each set; see :func:`~src.scoring.bootstrap.interval`.
        samples: number of resamples.
        seed: of the draws.

    Returns:
        ``wer``, ``cer``, ``fp_wer``, the ends ``wer_low`` and ``wer_high`` of the 95 % interval, and ``versus_fp``, the
        paired difference with its interval and its two-sided p-value; rates in percent.
    """
    rates = np.zeros((2, samples))
    for number, (scores, base, blocks) in enumerate(zip(own, fp, labels, strict=True)):
        errors = (scores.utterance_errors, base.utterance_errors)
        rates += resampled_rates(errors, scores.utterance_words, samples, _seed_of(seed, number), blocks) / len(own)
    wer, fp_wer = (float(np.mean([each.wer for each in scores])) for scores in (own, fp))
    low, high = _ends(rates[0])
    return {
        "wer": wer,
        "cer": float(np.mean([each.cer for each in own])),
        "fp_wer": fp_wer,
        "wer_low": low,
        "wer_high": high,
        "versus_fp": {"difference": wer - fp_wer, **_margin(rates[0] - rates[1])},
    }


def _margin(margins: NDArray[np.float64]) -> dict[str, Any]:
    low, high = _ends(margins)
    fewest = min(int((margins <= 0).sum()), int((margins >= 0).sum()))
    p_value = min(1.0, 2.0 * (fewest + 1) / (len(margins) + 1))
    return {"low": low, "high": high, "p_value": p_value, "significant": not low <= 0 <= high}


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)


def _seed_of(seed: int, number: int) -> int:
    """A seed of its own for each set; equal ones would draw sets of one size alike."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
