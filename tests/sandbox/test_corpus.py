"""The published corpus: its layout, its audio, its voices and its size."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.sandbox.making.build import DATA, MODELS
from tests.sandbox.making.corpus import PUBLISHED, PUBLISHED_LINES, SCHEMA, SpokenLine, parquet, published, read_config
from tests.sandbox.making.synthesis import MAX_SECONDS, RATE
from tests.sandbox.making.voices import FLITE, SEEN, UNSEEN

TRAINING_VOICES = {voice.name for voice in (*SEEN, *FLITE)}
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def spoken() -> dict[str, list[SpokenLine]]:
    return {config: read_config(DATA, config) for config in PUBLISHED}


def test_the_files_have_the_leaderboards_columns_and_audio_feature() -> None:
    for config in PUBLISHED:
        schema = pq.read_schema(parquet(DATA, config))
        assert schema.names == ["audio", "dataset", "text", "id", "audio_length_s", "voice"]
        assert schema.equals(SCHEMA)
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert features["audio"] == {"sampling_rate": RATE, "_type": "Audio"}


def test_the_card_declares_every_config() -> None:
    header = (DATA / "README.md").read_text().split("---")[1]
    for config, split in PUBLISHED.items():
        assert f"- config_name: {config}\n" in header
        assert f"  - split: {split}\n    path: {config}/{split}-*\n" in header


def test_audio_is_finite_sixteen_kilohertz_and_as_long_as_stated(spoken: dict[str, list[SpokenLine]]) -> None:
    for config, utterances in spoken.items():
        assert len(utterances) == PUBLISHED_LINES
        stated = pq.read_table(parquet(DATA, config), columns=["audio_length_s"])["audio_length_s"].to_pylist()
        assert stated == sorted(stated, reverse=True)
        for utterance, seconds in zip(utterances, stated, strict=True):
            assert torch.isfinite(utterance.audio).all()
            assert 0.02 < utterance.audio.abs().max() <= 1.1
            assert abs(len(utterance.audio) / RATE - seconds) < 0.001
            assert 0.5 < seconds <= MAX_SECONDS


def test_test_sets_hold_unseen_voices(spoken: dict[str, list[SpokenLine]]) -> None:
    for config, least in (("clean", 0.1), ("other", 0.6)):
        voices = [utterance.voice for utterance in spoken[config]]
        unseen = [voice for voice in voices if voice not in TRAINING_VOICES]
        assert set(unseen) <= {voice.name for voice in UNSEEN}
        assert len(unseen) >= least * len(voices)
    assert all(utterance.voice in TRAINING_VOICES for utterance in spoken["calibration"])


def test_the_files_are_what_the_script_says(spoken: dict[str, list[SpokenLine]]) -> None:
    for config, utterances in spoken.items():
        assert {(u.id, u.text) for u in utterances} == {(line.id, line.text) for line in published(config)}


def test_audio_and_weights_stay_small() -> None:
    def size(folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    assert size(DATA) + size(MODELS) <= 14 * MEGABYTE
