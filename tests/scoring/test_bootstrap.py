"""Intervals cover what they should, and a difference between systems is only found where there is one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from src.scoring.bootstrap import FEWEST_SPEAKERS, blocks, paired, percentiles, resampled_rates

Counts = np.ndarray


def corpus(random: np.random.Generator, utterances: int, rate: float) -> tuple[Counts, Counts]:
    """Errors and words of utterances whose error rates scatter around ``rate``."""
    words = random.integers(3, 30, utterances)
    return random.binomial(words, random.beta(2, 2 / rate - 2, utterances)), words


def interval(
    errors: ArrayLike, words: ArrayLike, samples: int, seed: int, labels: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """Of one system's error rate, in percent."""
    return percentiles(resampled_rates([errors], words, samples, seed, labels)[0])


def test_no_errors_and_equal_rates_have_intervals_of_no_width() -> None:
    assert interval([0, 0, 0], [5, 6, 7], 1_000, 0) == (0.0, 0.0)
    low, high = interval([1, 2, 3], [10, 20, 30], 1_000, 0)
    assert low == pytest.approx(10)
    assert high == pytest.approx(10)
    assert interval([3], [4], 1_000, 0) == (75.0, 75.0)


def test_the_interval_surrounds_the_rate_and_narrows_with_more_data() -> None:
    random = np.random.default_rng(0)
    widths = []
    for utterances in (100, 400, 1_600):
        errors, words = corpus(random, utterances, 0.15)
        low, high = interval(errors, words, 2_000, 0)
        assert low < 100 * errors.sum() / words.sum() < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.3)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.3)


def test_the_seed_alone_decides_the_draws() -> None:
    errors, words = corpus(np.random.default_rng(0), 200, 0.2)
    assert interval(errors, words, 1_000, 3) == interval(errors, words, 1_000, 3)
    assert interval(errors, words, 1_000, 3) != interval(errors, words, 1_000, 4)


def test_the_spread_is_that_of_a_ratio_of_sums() -> None:
    errors, words = corpus(np.random.default_rng(1), 500, 0.2)
    rate = errors.sum() / words.sum()
    deviation = 100 * np.sqrt(np.sum((errors - rate * words) ** 2)) / words.sum()  # the delta method
    low, high = interval(errors, words, 20_000, 0)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_95_percent_intervals_cover_the_truth_about_that_often() -> None:
    random = np.random.default_rng(5)
    truth, covered, sets = 15.0, 0, 200
    for number in range(sets):
        errors, words = corpus(random, 150, truth / 100)
        low, high = interval(errors, words, 500, number)
        covered += low <= truth <= high
    assert 0.90 <= covered / sets <= 0.99


def test_identical_systems_do_not_differ_at_all() -> None:
    errors, words = corpus(np.random.default_rng(0), 300, 0.2)
    result = paired(errors, errors, words, 1_000, 0)
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_winner_is_significant() -> None:
    errors, words = corpus(np.random.default_rng(0), 300, 0.2)
    worse = np.minimum(errors + (np.arange(300) % 3 == 0), words)
    result = paired(worse, errors, words, 2_000, 0)
    assert result.difference == pytest.approx(100 * (worse - errors).sum() / words.sum())
    assert 0 < result.low < result.difference < result.high
    assert result.p_value < 0.05


def test_exchanging_the_systems_mirrors_the_result() -> None:
    random = np.random.default_rng(2)
    (a, words), noise = corpus(random, 300, 0.2), random.integers(0, 2, 300)
    forth, back = paired(a + noise, a, words, 2_000, 7), paired(a, a + noise, words, 2_000, 7)
    assert back.difference == -forth.difference
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    assert back.p_value == forth.p_value


def test_pairing_finds_what_two_separate_intervals_cannot() -> None:
    random = np.random.default_rng(3)
    errors, words = corpus(random, 400, 0.3)
    worse = np.minimum(errors + (random.random(400) < 0.1), words)
    (_, high), (low, _) = interval(errors, words, 2_000, 0), interval(worse, words, 2_000, 0)
    assert low < high
    assert paired(worse, errors, words, 2_000, 0).p_value < 0.05


def test_equal_systems_are_seldom_called_different() -> None:
    random = np.random.default_rng(4)
    words = random.integers(3, 30, 200)
    p_values = []
    for number in range(200):
        a, b = random.binomial(words, 0.15), random.binomial(words, 0.15)
        p_values.append(paired(a, b, words, 400, number).p_value)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def by_speaker(random: np.random.Generator, speakers: int, each: int, rate: float) -> tuple[Counts, Counts, list[int]]:
    """Errors, words and speakers of utterances whose error rate is their speaker's."""
    words = random.integers(3, 30, speakers * each)
    labels = np.repeat(np.arange(speakers), each)
    return random.binomial(words, random.beta(2, 2 / rate - 2, speakers)[labels]), words, labels.tolist()


def test_speakers_of_one_utterance_each_are_the_plain_bootstrap() -> None:
    random = np.random.default_rng(0)
    (a, words), b = corpus(random, 100, 0.2), random.integers(0, 3, 100)
    labels = [f"speaker {number}" for number in random.permutation(100)]
    assert interval(a, words, 500, 1, labels) == interval(a, words, 500, 1)
    assert paired(a, b, words, 500, 1, labels) == paired(a, b, words, 500, 1)


def test_a_speaker_s_utterances_are_drawn_together_wherever_they_stand() -> None:
    errors, words, labels = by_speaker(np.random.default_rng(0), 12, 5, 0.2)
    order = np.arange(60).reshape(12, 5).T.ravel()  # speakers take turns, and first occur in the same order
    shuffled = [labels[at] for at in order]
    pooled = np.add.reduceat(errors, range(0, 60, 5)), np.add.reduceat(words, range(0, 60, 5))
    assert interval(errors[order], words[order], 500, 1, shuffled) == interval(*pooled, 500, 1)


def test_intervals_by_speaker_are_wider_where_speakers_differ_and_cover_the_truth() -> None:
    random = np.random.default_rng(6)
    truth, sets, plain, by_block = 20.0, 150, 0, 0
    for number in range(sets):
        errors, words, labels = by_speaker(random, 30, 10, truth / 100)
        low, high = interval(errors, words, 400, number)
        wide_low, wide_high = interval(errors, words, 400, number, labels)
        assert wide_high - wide_low > high - low
        plain += low <= truth <= high
        by_block += wide_low <= truth <= wide_high
    assert by_block / sets >= 0.88
    assert plain / sets <= 0.75


def test_p_values_by_speaker_are_about_uniform_where_nothing_differs() -> None:
    """The plain bootstrap calls speakers' habits a difference between systems; the blockwise one does not."""
    random = np.random.default_rng(7)
    plain, by_block = [], []
    for number in range(150):
        (a, words, labels), (b, *_) = (by_speaker(random, 30, 10, 0.2) for _ in range(2))
        b = np.minimum(b, words)
        plain.append(paired(a, b, words, 300, number).p_value)
        by_block.append(paired(a, b, words, 300, number, labels).p_value)
    for quantile in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(by_block) <= quantile) == pytest.approx(quantile, abs=0.1)
    assert np.mean(np.array(plain) <= 0.05) >= 0.3


def test_the_unit_drawn_is_the_speaker_only_where_enough_are_known() -> None:
    names = [f"u{number}" for number in range(2 * FEWEST_SPEAKERS)]
    many = [f"s{number % FEWEST_SPEAKERS}" for number in range(len(names))]
    found = blocks(names, many)
    assert (found.unit, found.speakers, len(set(found.labels))) == ("speaker", FEWEST_SPEAKERS, FEWEST_SPEAKERS)
    few = blocks(names, [f"s{number % (FEWEST_SPEAKERS - 1)}" for number in range(len(names))])
    assert (few.unit, few.speakers, len(set(few.labels))) == ("utterance", FEWEST_SPEAKERS - 1, len(names))
    unknown = blocks(names, [None] * len(names))
    assert (unknown.unit, unknown.speakers, len(set(unknown.labels))) == ("utterance", 0, len(names))


def test_an_utterance_without_a_speaker_is_a_block_of_its_own() -> None:
    names = [f"s{number}" for number in range(FEWEST_SPEAKERS + 2)]  # ids that look like speakers
    found = blocks(names, [*names[1 : FEWEST_SPEAKERS + 1], None, None])
    assert found.unit == "speaker"
    assert len(set(found.labels)) == FEWEST_SPEAKERS + 2


def test_effect_sizes_of_a_known_difference() -> None:
    a, b, words = np.array([1, 1, 2, 2] * 20), np.array([2, 2, 4, 4] * 20), np.full(80, 10)
    result = paired(a, b, words, 500, 0)
    assert result.difference == pytest.approx(-15)
    assert (result.relative, result.relative_low, result.relative_high) == pytest.approx((-50, -50, -50))
    assert result.improvement_probability == 1.0
    assert result.significant


def test_equal_systems_have_no_effect_and_no_preference() -> None:
    errors, words = corpus(np.random.default_rng(0), 100, 0.2)
    result = paired(errors, errors, words, 500, 0)
    assert (result.relative, result.improvement_probability, result.significant) == (0.0, 0.5, False)


def test_a_relative_change_is_told_only_where_there_is_something_to_divide_by() -> None:
    result = paired([0] * 19 + [3], [0] * 19 + [1], [5] * 20, 500, 0)  # a third of the resamples lack the last one
    assert (result.relative, result.relative_low, result.relative_high) == (pytest.approx(200), None, None)
    assert result.difference == pytest.approx(2)
    result = paired([0] * 19 + [3], [0] * 20, [5] * 20, 500, 0)
    assert (result.relative, result.relative_low, result.relative_high) == (None, None, None)


def test_exchanging_the_systems_mirrors_the_preference() -> None:
    random = np.random.default_rng(2)
    (a, words), noise = corpus(random, 300, 0.2), random.integers(-1, 2, 300)
    b = np.maximum(a + noise, 0)
    forth, back = paired(a, b, words, 500, 7), paired(b, a, words, 500, 7)
    assert 0 < forth.improvement_probability < 1
    assert forth.improvement_probability + back.improvement_probability == pytest.approx(1)


def test_labels_have_to_fit_the_utterances() -> None:
    with pytest.raises(ValueError, match="2 labels"):
        interval([1, 1, 1], [5, 5, 5], 500, 0, ["a", "b"])


def test_a_large_set_is_drawn_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, words = corpus(np.random.default_rng(0), 100, 0.2)
    whole = interval(errors, words, 1_000, 0)
    monkeypatch.setattr("src.scoring.bootstrap._CELLS", 700)
    assert interval(errors, words, 1_000, 0) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    ("errors", "words"), [([], []), ([1], [2, 3]), ([1, 1], [2, 0]), ([-1, 1], [2, 2]), ([[1]], [[2]])]
)
def test_counts_that_make_no_sense_are_refused(errors: list[int], words: list[int]) -> None:
    with pytest.raises(ValueError, match=r"counts must be|every utterance needs"):
        paired(errors, errors, words, 1_000, 0)
