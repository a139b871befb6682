"""The sample of LibriSpeech that ships: whole, small, calibrated on other speakers, and drawn as its card says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile

from tests.composed import composed
from tests.data.test_mirror import MIRROR
from tests.embedded.speech_sample import CALIBRATION, SAMPLE, TESTS, parquet, speaker, write
from tests.utterances import load_utterances

UTTERANCES = {**TESTS, CALIBRATION: 39}
SPEAKERS = {"test.clean": 24, "test.other": 8, CALIBRATION: 9}


@pytest.fixture(scope="module")
def sample() -> dict[str, list[dict[str, Any]]]:
    return {split: pq.read_table(parquet(SAMPLE, split)).to_pylist() for split in UTTERANCES}


def test_every_split_has_the_utterances_and_speakers_of_its_card(sample: dict[str, list[dict[str, Any]]]) -> None:
    card = (SAMPLE / "README.md").read_text()
    for split, rows in sample.items():
        spoken = {speaker(row["id"]) for row in rows}
        assert (len(rows), len(spoken)) == (UTTERANCES[split], SPEAKERS[split])
        minutes = sum(row["audio_length_s"] for row in rows) / 60
        words = sum(len(row["text"].split()) for row in rows)
        assert f"| `{split}` | {len(rows)} | {len(spoken)} | {minutes:.1f} | {words:,} |" in card
        assert f"  - split: {split}\n    path: librispeech/{split}-*\n" in card


def test_no_clip_is_twice_and_no_calibration_speaker_is_tested(sample: dict[str, list[dict[str, Any]]]) -> None:
    ids = [row["id"] for rows in sample.values() for row in rows]
    assert len(set(ids)) == len(ids)
    tested = {speaker(row["id"]) for split in TESTS for row in sample[split]}
    assert tested.isdisjoint(speaker(row["id"]) for row in sample[CALIBRATION])


def test_audio_is_flac_as_long_as_stated_longest_first(sample: dict[str, list[dict[str, Any]]]) -> None:
    for split, rows in sample.items():
        assert pq.read_schema(parquet(SAMPLE, split)).names == ["audio", "dataset", "text", "id", "audio_length_s"]
        lengths = [row["audio_length_s"] for row in rows]
        assert lengths == sorted(lengths, reverse=True)
        for row in rows:
            audio = soundfile.info(io.BytesIO(row["audio"]["bytes"]))
            assert (audio.format, audio.subtype, audio.samplerate, audio.channels) == ("FLAC", "PCM_16", 16_000, 1)
            assert audio.duration == pytest.approx(row["audio_length_s"], abs=0.001)


def test_it_ships_its_licence_in_at_most_twenty_megabytes() -> None:
    assert "https://creativecommons.org/licenses/by/4.0/" in (SAMPLE / "LICENSE").read_text()
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*") if file.is_file()) <= 20_000_000


@pytest.mark.parametrize(("name", "split"), [("clean", "test.clean"), ("other", "test.other")])
def test_its_test_sets_load_by_name_with_their_speakers(name: str, split: str) -> None:
    calibrate = "dataset@calib.dataset=librispeech_sample_calibration"
    settings = composed(f"dataset=librispeech_sample_{name}", calibrate)
    for dataset, part in ((settings.dataset, split), (settings.calib.dataset, CALIBRATION)):
        utterances = load_utterances(dataset, seed=0)
        assert len(utterances) == UTTERANCES[part]
        assert len({utterance.speaker for utterance in utterances}) == SPEAKERS[part]


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no copy of the leaderboard's data here")
def test_the_command_draws_the_committed_sample(tmp_path: Path) -> None:
    write(MIRROR, tmp_path)
    for split in UTTERANCES:
        made, committed = parquet(tmp_path, split), parquet(SAMPLE, split)
        assert pq.read_table(made).equals(pq.read_table(committed), check_metadata=True)
        if pq.read_metadata(made).created_by == pq.read_metadata(committed).created_by:  # else of another pyarrow
            assert made.read_bytes() == committed.read_bytes()
