"""The training pool: undistorted synthesised utterances in shards, read back into memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.sandbox.making.script import Line, script
from tests.sandbox.making.synthesis import MAX_SECONDS, RATE, speak

SHARD = 2_000
_FULL_SCALE = 32_767


def _write_shard(folder: Path, number: int, lines: Sequence[Line]) -> Path:
    """``NNN.npy`` (int16 samples of all its utterances) and, last, ``NNN.json`` ([length, text] each)."""
    index = folder / f"{number:03d}.json"
    if not index.exists():
        spoken = [(line.text, speak(line.text, line.delivery)) for line in lines]
        kept = [(text, samples) for text, samples in spoken if len(samples) <= MAX_SECONDS * RATE]
        audio = np.concatenate([samples for _, samples in kept])
        np.save(index.with_suffix(".npy"), (audio * _FULL_SCALE).astype(np.int16))
        partial = index.with_suffix(".partial")
        partial.write_text(json.dumps([[len(samples), text] for text, samples in kept]))
        partial.replace(index)
    return index


def synthesise(folder: Path, split: str, workers: int) -> None:
    """Speak a whole split into ``folder``; shards already there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = script(split)
    with ProcessPoolExecutor(workers) as pool:
        starts = range(0, len(lines), SHARD)
        jobs = [pool.submit(_write_shard, folder, i, lines[at : at + SHARD]) for i, at in enumerate(starts)]
        for job in jobs:
            print("synthesised", job.result(), flush=True)


@dataclass(frozen=True)
class Pool:
    """Utterances of the shards finished so far: per utterance its text, length (samples) and where it lies."""

    texts: list[str]
    lengths: NDArray[np.int64]
    _shards: list[NDArray[np.int16]]
    _places: list[tuple[int, int]]

    @classmethod
    def read(cls, folder: Path) -> Pool:
        """Read every finished shard of ``folder``: 3.5 GB for the whole training split."""
        texts: list[str] = []
        lengths: list[int] = []
        shards: list[NDArray[np.int16]] = []
        places: list[tuple[int, int]] = []
        for index in sorted(folder.glob("*.json")):
            shards.append(np.load(index.with_suffix(".npy")))
            start = 0
            for length, text in json.loads(index.read_text()):
                texts.append(text)
                lengths.append(length)
                places.append((len(shards) - 1, start))
                start += length
        return cls(texts, np.array(lengths), shards, places)

    def __len__(self) -> int:
        return len(self.texts)

    def samples(self, number: int) -> NDArray[np.float32]:
        """Float32 samples (lengths[number],) of one utterance."""
        shard, start = self._places[number]
        piece = self._shards[shard][start : start + int(self.lengths[number])]
        return piece.astype(np.float32) / np.float32(_FULL_SCALE)
