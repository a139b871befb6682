"""Every yaml in conf/dataset is a complete, checked choice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.settings import ROOT, DatasetSettings

FILES = sorted((ROOT / "conf" / "dataset").glob("*.yaml"))
LEADERBOARD = {
    "ami": ("ami", "test"),
    "earnings22": ("earnings22", "test"),
    "gigaspeech": ("gigaspeech", "test"),
    "librispeech_clean": ("librispeech", "test.clean"),
    "librispeech_other": ("librispeech", "test.other"),
    "spgispeech": ("spgispeech", "test"),
    "tedlium": ("tedlium", "test"),
    "voxpopuli": ("voxpopuli", "test"),
}


def read(file: Path) -> DatasetSettings:
    return DatasetSettings.model_validate(OmegaConf.to_container(OmegaConf.load(file)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_choice_is_valid_and_bears_its_files_name(file: Path) -> None:
    settings = read(file)
    assert settings.name == file.stem
    assert settings.root is None
    assert settings.limit is None


def test_the_leaderboard_is_there_at_one_pinned_revision() -> None:
    chosen = {file.stem: read(file) for file in FILES if not file.stem.startswith("embedded")}
    assert {name: (settings.config, settings.split) for name, settings in chosen.items()} == LEADERBOARD
    assert {settings.source for settings in chosen.values()} == {"hf-audio/esb-datasets-test-only-sorted"}
    (revision,) = {settings.revision for settings in chosen.values()}
    assert re.fullmatch(r"[0-9a-f]{40}", str(revision))
