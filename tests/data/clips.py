"""Clips and corpora that the tests write themselves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile


def tone(seconds: float, hertz: float, rate: int = 16_000, channels: int = 1, file: str = "WAV") -> bytes:
    """An encoded sine of amplitude 0.5; the second channel, if any, is silent."""
    samples = np.zeros((round(seconds * rate), channels))
    samples[:, 0] = 0.5 * np.sin(2 * np.pi * hertz * np.arange(len(samples)) / rate)
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=file)
    return stream.getvalue()


def clip(name: str, text: str = "some words", audio: bytes | None = None) -> dict[str, Any]:
    """A row in the leaderboard's columns."""
    encoded = tone(0.05, 440) if audio is None else audio
    return {
        "audio": {"bytes": encoded, "path": f"{name}.wav"},
        "dataset": "own",
        "text": text,
        "id": name,
        "audio_length_s": 0.05,
    }


def write(file: Path, rows: list[dict[str, Any]], row_group_size: int = 4) -> None:
    """One parquet file, in small row groups so that reading a part of it is exercised."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=row_group_size)
