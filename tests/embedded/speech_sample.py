"""Draws the sample of LibriSpeech that ships with the project: ``python -m tests.embedded.speech_sample FOLDER``.

``FOLDER`` is a copy of the Open ASR leaderboard's test sets in the hub's layout. The sample is of its clips: another
copy gives another sample, the same copy the same bytes (with the same pyarrow, which signs its files).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.data.hub_folder import HubFolder
from src.data.utterance import chosen
from src.errors import UserError
from src.project import ROOT

SAMPLE: Final = ROOT / "src" / "embedded" / "librispeech_sample"
CONFIG: Final = "librispeech"
SEED: Final = 0
TESTS: Final = {"test.clean": 60, "test.other": 40}  # split: utterances
CALIBRATION: Final = "calibration"
_APART: Final = 5  # one speaker in so many is heard in calibration alone
_MAX_BYTES: Final = 19_900_000  # of all audio; what calibration has is what the test sets leave


def draw(copy: Path) -> dict[str, pa.Table]:
    """The splits of the sample: a row an utterance, in the leaderboard's columns and order, longest first.

    Of each test set, one speaker in five is set apart by seed. The utterances of the others are drawn from at random;
    those of the speakers set apart, both test sets together, are drawn from for calibration until the size is reached.

    Raises:
        UserError: ``copy`` lacks the test sets.
    """
    splits, apart = {}, []
    for split, n in TESTS.items():
        table = pa.concat_tables(pq.read_table(file) for file in HubFolder(copy).files(CONFIG, split))
        speakers = [speaker(name) for name in table["id"].to_pylist()]
        among = sorted(set(speakers))
        held = {among[index] for index in chosen(among, len(among) // _APART, SEED)}
        is_apart = pa.array(name in held for name in speakers)
        apart.append(table.filter(is_apart))
        splits[split] = _drawn(table.filter(pc.invert(is_apart)), n)
    pool = pa.concat_tables(apart)
    room = _MAX_BYTES - sum(_audio_bytes(table) for table in splits.values())
    fitting = (_drawn(pool, n) for n in range(len(pool), 0, -1))
    splits[CALIBRATION] = next(table for table in fitting if _audio_bytes(table) <= room)
    return splits


def write(copy: Path, folder: Path) -> None:
    """Draw the sample and write it: the audio files' bytes as they are, a parquet file a split. Raises as `draw`."""
    for split, table in draw(copy).items():
        path = parquet(folder, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="none")
        print(f"{path}: {len(table)} utterances, {_audio_bytes(table) / 1e6:.1f} MB of audio")


def parquet(folder: Path, split: str) -> Path:
    """Where a split lies under ``folder``."""
    return folder / CONFIG / f"{split}-00000-of-00001.parquet"


def speaker(utterance: str) -> str:
    """Who speaks: LibriSpeech's ids are speaker-chapter-utterance."""
    return utterance.split("-")[0]


def _drawn(table: pa.Table, n: int) -> pa.Table:
    """``n`` rows at random, longest first."""
    rows = chosen(table["id"].to_pylist(), n, SEED)
    return table.take(rows).sort_by([("audio_length_s", "descending"), ("id", "ascending")])


def _audio_bytes(table: pa.Table) -> int:
    return sum(len(audio["bytes"]) for audio in table["audio"].to_pylist())


def main() -> None:
    """Write the sample of the named copy into the project."""
    parser = argparse.ArgumentParser(description="draw the sample of LibriSpeech that ships with the project")
    parser.add_argument("folder", type=Path, help="a copy of hf-audio/esb-datasets-test-only-sorted")
    try:
        write(parser.parse_args().folder, SAMPLE)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
