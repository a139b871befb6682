"""A corpus costs the memory of what is read next, however large it is, and is read about once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from src.data import corpora, parquet
from src.data.corpora import open_corpus
from src.data.selection import Selection
from src.data.utterance import Utterance
from src.decoding.decode import batches
from src.project import ROOT
from tests.data.clips import clip, tone, write
from tests.data.sets import dataset
from tests.utterances import load_utterances

CLIP = 10.0  # seconds, 320 kB as wav
PEAK = """
import resource, sys
from src.data import corpora, parquet
from src.data.corpora import open_corpus
from src.data.selection import Selection
from tests.data.sets import dataset

parquet.HELD, corpora._WINDOW = 4 << 20, 2 << 20
for folder in sys.argv[1:]:
    utterances = open_corpus(Selection(dataset(folder), None, 0), None, "fail").utterances()
    utterances.sort(key=lambda utterance: (utterance.window, utterance.id))
    heard = sum(len(utterance.waveform()) for utterance in utterances)
    print(heard, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_four_times_the_audio_needs_no_more_memory(tmp_path: Path) -> None:
    """In one process, which inspects the small corpus and reads it window by window, then the large one."""
    sizes = {"small": 40, "large": 160}
    for name, clips in sizes.items():
        sounds = [tone(CLIP, 300 + number) for number in range(5)]
        rows = [clip(f"{number}", audio=sounds[number % 5]) for number in range(clips)]
        write(tmp_path / name / "own" / "test-0.parquet", rows)
    command = [sys.executable, "-c", PEAK, *(str(tmp_path / name) for name in sizes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (small, before), (large, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert large == 4 * small == sizes["large"] * CLIP * 16_000
    assert after - before < 120 * 320 / 4  # kB: a quarter of the audio that the large corpus has more


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A small reader; the list fills with the number of rows of every batch of audio that is taken from a file."""
    monkeypatch.setattr(parquet, "HELD", 80_000)
    monkeypatch.setattr(corpora, "_WINDOW", 40_000)
    sizes: list[int] = []
    iterate = pq.ParquetFile.iter_batches

    def counted(file: pq.ParquetFile, **options: Any) -> Any:
        for batch in iterate(file, **options):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    return sizes


def make(folder: Path, clips: int, row_group_size: int) -> list[bytes]:
    """Clips of 0.05 to 0.1 s in shuffled order; returns their files by row."""
    lengths = np.random.default_rng(0).uniform(0.05, 0.1, clips)
    sounds = [tone(seconds, 300 + 10 * row) for row, seconds in enumerate(lengths)]
    rows = [clip(f"{row * 7 % clips:03d}", audio=sound) for row, sound in enumerate(sounds)]
    write(folder / "own" / "test-0.parquet", rows, row_group_size)
    return sounds


@pytest.mark.parametrize("row_group_size", [4, 1_000])
def test_read_lazily_is_what_is_stored_and_every_row_is_read_once_a_pass(
    tmp_path: Path, read: list[int], row_group_size: int
) -> None:
    sounds = make(tmp_path, 100, row_group_size)
    utterances = open_corpus(Selection(dataset(tmp_path), None, 0), None, "fail").utterances()
    assert sum(read) == 100  # inspected
    plan = batches(utterances, 5)
    assert len({utterance.window for utterance in utterances}) >= 5
    found = {utterances[index].id: utterances[index].encoded() for batch in plan for index in batch}
    assert found == {f"{row * 7 % 100:03d}": sound for row, sound in enumerate(sounds)}
    assert sum(read) <= 100 + 150  # a group at the border of two windows may be read twice


def test_any_order_reads_the_same(tmp_path: Path, read: list[int]) -> None:
    sounds = make(tmp_path, 60, 8)
    utterances = load_utterances(dataset(tmp_path), seed=0)
    for index in np.random.default_rng(1).permutation(60):
        assert (
            utterances[index].encoded() == sounds[[row * 7 % 60 for row in range(60)].index(int(utterances[index].id))]
        )


def test_a_draw_reads_no_group_without_a_drawn_clip(tmp_path: Path, read: list[int]) -> None:
    make(tmp_path, 100, 5)
    utterances = load_utterances(dataset(tmp_path, limit=2), seed=0)
    assert sum(read) <= 10
    assert [len(utterance.waveform()) for utterance in utterances] == [utterance.samples for utterance in utterances]


def test_a_batch_stays_within_a_window_and_is_longest_first() -> None:
    utterances = [Utterance(f"{n:02d}", "", 100 + n * 37 % 50, b"", window=n // 10) for n in range(25)]
    plan = batches(utterances, 4)
    assert sorted(index for batch in plan for index in batch) == list(range(25))
    assert [len({utterances[index].window for index in batch}) for batch in plan] == [1] * len(plan)
    for window in range(3):
        samples = [utterances[i].samples for batch in plan for i in batch if utterances[i].window == window]
        assert samples == sorted(samples, reverse=True)
