"""The unweighted mean over test sets: each counts the same, and its interval follows from theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from src.scoring.bootstrap import paired, percentiles, resampled_rates
from src.scoring.mean import mean_scores
from src.scoring.wer import WerResult


def scores(errors: np.ndarray, words: np.ndarray, cer: float = 3.0) -> WerResult:
    total = int(errors.sum())
    edits = np.stack([errors, 0 * errors, 0 * errors], axis=1)
    rates = {"wer": (errors, words)}
    return WerResult(100 * total / int(words.sum()), total, 0, 0, int(words.sum()), cer, edits, rates)


def drawn(seed: int, utterances: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    words = random.integers(3, 30, utterances)
    return random.binomial(words, rate), words


def mean(own: list[WerResult], fp: list[WerResult], samples: int, seed: int) -> dict[str, Any]:
    """Of utterances that are each drawn alone."""
    return mean_scores(own, fp, [range(len(each.utterance_words)) for each in own], samples, seed)


def test_a_small_set_counts_as_much_as_a_large_one() -> None:
    small, large = scores(np.array([5]), np.array([10]), 1.0), scores(np.full(50, 1), np.full(50, 10), 4.0)
    perfect = scores(np.array([0]), np.array([10]))
    found = mean([small, large], [perfect, large], 100, 0)
    assert (found["wer"], found["cer"], found["fp_wer"]) == (30.0, 2.5, 5.0)
    assert versus_fp(found)["difference"] == 25.0


def test_of_one_set_the_interval_is_that_of_the_set() -> None:
    (errors, words), worse = drawn(0, 400, 0.2), drawn(1, 400, 0.02)[0]
    own, fp = scores(errors + worse, words), scores(errors, words)
    found = mean([own], [fp], 4_000, 0)
    ends = percentiles(resampled_rates([errors + worse], words, 4_000, 1)[0])
    assert (found["wer_low"], found["wer_high"]) == pytest.approx(ends, rel=0.03)
    alone = paired(errors + worse, errors, words, 4_000, 1)
    assert versus_fp(found)["low"] == pytest.approx(alone.low, rel=0.1)
    assert versus_fp(found)["high"] == pytest.approx(alone.high, rel=0.1)
    assert versus_fp(found)["significant"]


def test_sets_are_drawn_independently() -> None:
    """The mean over four equal sets is twice as sure as each of them."""
    errors, words = drawn(0, 300, 0.2)
    one, four = (mean([scores(errors, words)] * n, [scores(errors, words)] * n, 4_000, 0) for n in (1, 4))
    assert width(one) / width(four) == pytest.approx(2, rel=0.1)


def test_equal_systems_do_not_differ() -> None:
    sets = [scores(*drawn(seed, 100, 0.2)) for seed in range(3)]
    difference = versus_fp(mean(sets, sets, 500, 0))
    assert (difference["difference"], difference["low"], difference["high"], difference["p_value"]) == (0, 0, 0, 1)
    assert not difference["significant"]


def versus_fp(found: dict[str, Any]) -> dict[str, Any]:
    difference: dict[str, Any] = found["versus_fp"]
    return difference


def width(found: dict[str, Any]) -> float:
    return float(found["wer_high"] - found["wer_low"])
