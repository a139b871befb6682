"""The corpus on disk: parquet files in the layout of the Open ASR leaderboard, audio as Ogg Vorbis.

The samples are the same whenever they are made with the same espeak-ng and flite; the files' bytes are not, since an
Ogg stream carries a random serial number.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from torch import Tensor

from tests.sandbox.making.acoustics import CLEAN, MILD, OTHER, Distortion, distort, noise_bank
from tests.sandbox.making.script import SEED, SIZES, Line, script
from tests.sandbox.making.synthesis import MAX_SECONDS, RATE, Samples, speak

DATASET = "sandbox"
PUBLISHED = {"clean": "test", "other": "test", "calibration": "train"}  # config: its split, as the hub names them
PUBLISHED_LINES = 64  # of each, the first: what tests need
DISTORTIONS = {"clean": CLEAN, "other": OTHER, "calibration": MILD, "dev_clean": CLEAN, "dev_other": OTHER}
_BABBLE_LINES = 240
_VORBIS_COMPRESSION = 0.4  # of 0 (best quality) to 1
_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "audio": {"sampling_rate": RATE, "_type": "Audio"},
    "dataset": _TEXT,
    "text": _TEXT,
    "id": _TEXT,
    "audio_length_s": {"dtype": "float64", "_type": "Value"},
    "voice": _TEXT,
}
SCHEMA = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.float64() if name == "audio_length_s" else pa.string()) for name in list(_FEATURES)[1:]),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


@dataclass(frozen=True)
class SpokenLine:
    """One utterance read back: samples (n,) at 16 kHz, what is said, and by which voice."""

    id: str
    text: str
    voice: str
    audio: Tensor


def parquet(folder: Path, config: str) -> Path:
    """Where a config lies under ``folder``."""
    return folder / config / f"{PUBLISHED.get(config, 'validation')}-00000-of-00001.parquet"


def write_config(folder: Path, config: str) -> None:
    """Speak, distort, encode and write one config, longest utterance first as the leaderboard has it."""
    bank = _bank(config)
    lines = published(config) if config in PUBLISHED else script(config)
    rows = sorted((_row(line, DISTORTIONS[config], bank) for line in lines), key=lambda row: row["id"])
    rows.sort(key=lambda row: -float(row["audio_length_s"]))
    if rows[0]["audio_length_s"] > MAX_SECONDS:
        raise ValueError(f"{rows[0]['id']} lasts {rows[0]['audio_length_s']} s, more than {MAX_SECONDS}")
    path = parquet(folder, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial, compression="none")
    partial.replace(path)


def published(config: str) -> tuple[Line, ...]:
    """The lines of a config that ship with the project."""
    return script(config)[:PUBLISHED_LINES]


def check_splits() -> None:
    """Raise when two splits share a sentence."""
    sentences = [line.text for split in SIZES for line in script(split)]
    if len(set(sentences)) != len(sentences):
        raise ValueError("two splits share a sentence")


def read_config(folder: Path, config: str) -> list[SpokenLine]:
    """Every utterance of a config, decoded."""
    utterances = []
    for row in pq.read_table(parquet(folder, config)).to_pylist():
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        if rate != RATE:
            raise ValueError(f"{row['id']} has {rate} samples a second")
        utterances.append(SpokenLine(row["id"], row["text"], row["voice"], torch.from_numpy(samples)))
    return utterances


def _bank(config: str) -> Tensor:
    """Noises (kinds, samples) for one config; the babble is training speech, so that no test sentence is heard."""
    speech = [torch.from_numpy(speak(line.text, line.delivery)) for line in script("train")[:_BABBLE_LINES]]
    return noise_bank(speech, torch.Generator().manual_seed(SEED + list(SIZES).index(config)))


def _row(line: Line, how: Distortion, bank: Tensor) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(line.rng("distortion").getrandbits(60))
    clean = torch.from_numpy(speak(line.text, line.delivery))[None]
    samples = distort(clean, torch.tensor([clean.shape[1]]), bank, how, generator)[0].numpy()
    return {
        "audio": {"bytes": _vorbis(samples), "path": f"{line.id}.ogg"},
        "dataset": DATASET,
        "text": line.text,
        "id": line.id,
        "audio_length_s": len(samples) / RATE,
        "voice": line.delivery.voice.name,
    }


def _vorbis(samples: Samples) -> bytes:
    file = io.BytesIO()
    level = _VORBIS_COMPRESSION
    soundfile.write(file, np.asarray(samples), RATE, format="OGG", subtype="VORBIS", compression_level=level)
    return file.getvalue()
