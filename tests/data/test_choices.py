"""Every yaml in conf/dataset is a complete, checked choice."""

from __future__ import annotations

import re
from functools import cache

import pytest

from src.project import ROOT
from src.settings import DatasetSettings
from tests.composed import composed, composites

NAMES = sorted({path.stem for path in (ROOT / "conf" / "dataset").glob("*.yaml")} - composites())
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


OPEN_ASR = {
    "open_asr_ami": ("ami_cleaned", "test"),
    "open_asr_earnings22": ("earnings22", "test"),
    "open_asr_gigaspeech": ("gigaspeech_cleaned", "test"),
    "open_asr_librispeech_clean": ("librispeech", "test.clean"),
    "open_asr_librispeech_other": ("librispeech", "test.other"),
    "open_asr_spgispeech": ("spgispeech", "test"),
    "open_asr_voxpopuli": ("voxpopuli_cleaned_aa", "test"),
}


@cache
def read(name: str) -> DatasetSettings:
    return composed(f"dataset={name}").dataset


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_is_the_whole_set_wherever_it_lies(name: str) -> None:
    settings = read(name)
    assert settings.root is None
    assert settings.limit is None
    assert settings.max_seconds is None


@pytest.mark.parametrize(
    ("expected", "source"),
    [(LEADERBOARD, "hf-audio/esb-datasets-test-only-sorted"), (OPEN_ASR, "hf-audio/open-asr-leaderboard")],
)
def test_a_generation_of_the_leaderboard_is_there_at_one_pinned_revision(
    expected: dict[str, tuple[str, str]], source: str
) -> None:
    found = {name: read(name) for name in NAMES if name in expected or read(name).source == source}
    assert {name: (settings.config, settings.split) for name, settings in found.items()} == expected
    assert {settings.source for settings in found.values()} == {source}
    (revision,) = {settings.revision for settings in found.values()}
    assert re.fullmatch(r"[0-9a-f]{40}", str(revision))


@pytest.mark.parametrize("name", [name for name in NAMES if "librispeech" in name])
def test_a_librispeech_id_tells_its_speaker(name: str) -> None:
    match = re.match(str(read(name).speaker_pattern), "8224-274381-0009")
    assert match is not None
    assert match.group(1) == "8224"
