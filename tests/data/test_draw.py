"""Subsets are random, reproducible, and do not depend on how a corpus happens to be sorted."""

from __future__ import annotations

import numpy as np

from src.data.utterance import chosen

IDS = [f"clip-{number:03d}" for number in range(200)]


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    assert chosen(IDS, 20, seed=1) == chosen(IDS, 20, seed=1)
    assert chosen(IDS, 20, seed=1) != chosen(IDS, 20, seed=2)


def test_a_draw_is_not_the_head_of_the_list() -> None:
    assert chosen(IDS, 20, seed=0) != list(range(20))
    assert max(chosen(IDS, 20, seed=0)) > 100


def test_order_of_the_corpus_does_not_matter() -> None:
    shuffled = list(np.random.default_rng(0).permutation(IDS))
    assert [shuffled[index] for index in chosen(shuffled, 20, 3)] == [IDS[index] for index in chosen(IDS, 20, 3)]


def test_the_result_is_in_the_order_of_the_ids() -> None:
    backwards = IDS[::-1]
    drawn = [backwards[index] for index in chosen(backwards, 50, 0)]
    assert drawn == sorted(drawn)


def test_a_larger_draw_contains_the_smaller_one() -> None:
    assert set(chosen(IDS, 10, 5)) < set(chosen(IDS, 60, 5))


def test_no_limit_and_a_limit_beyond_the_set_take_everything() -> None:
    assert chosen(IDS, None, 0) == chosen(IDS, 10_000, 0) == list(range(len(IDS)))


def test_every_utterance_is_equally_likely() -> None:
    counts = np.zeros(len(IDS))
    for seed in range(500):
        counts[chosen(IDS, 40, seed)] += 1
    expected, spread = 500 * 0.2, np.sqrt(500 * 0.2 * 0.8)
    assert np.abs(counts - expected).max() < 4.5 * spread
