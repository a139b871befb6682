"""No calibration clip is in the test set: by id, by sound, and where both are drawn from one split."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import soundfile

from src.data.corpora import Corpus, open_corpus, require_disjoint
from src.data.selection import Selection
from src.errors import UserError
from src.settings import DatasetSettings
from tests.data.clips import clip, tone, write
from tests.data.sets import dataset


def make(folder: Path, hertz: dict[str, int], file: str = "WAV", **changes: Any) -> DatasetSettings:
    rows = [clip(name, f"words {name}", encoded(pitch, file)) for name, pitch in hertz.items()]
    write(folder / "own" / "test-0.parquet", rows)
    return dataset(folder, **changes)


def encoded(hertz: int, file: str) -> bytes:
    """A tone of 16-bit samples, in whichever format."""
    samples, rate = soundfile.read(io.BytesIO(tone(0.2, hertz)), dtype="int16")
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=file)
    return stream.getvalue()


def corpus(settings: DatasetSettings, **fields: Any) -> Corpus:
    return open_corpus(Selection(settings, **{"n": None, "seed": 0, **fields}), None, "fail")


def test_other_names_and_sounds_are_disjoint(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1", {"a": 300, "b": 400}), make(tmp_path / "2", {"c": 500, "d": 600})
    require_disjoint(corpus(one), corpus(two))


def test_a_shared_sound_is_found_under_another_name_and_in_another_format(tmp_path: Path) -> None:
    test = make(tmp_path / "1", {"a": 300, "b": 400})
    calibration = make(tmp_path / "2", {"c": 500, "d": 400, "e": 700}, file="FLAC")
    with pytest.raises(UserError) as caught:
        require_disjoint(corpus(calibration), corpus(test))
    assert caught.value.field == "calib.dataset"
    assert "1 of 3 calibration clips are in the test set too: 'd' (same audio)" in str(caught.value)
    assert "dataset@calib.dataset=NAME" in caught.value.remedy


def test_a_shared_id_is_found_though_the_sound_was_encoded_with_loss(tmp_path: Path) -> None:
    test = make(tmp_path / "1", {"a": 300, "b": 400})
    with pytest.raises(UserError, match=r"'b' \(same id\)"):
        require_disjoint(corpus(make(tmp_path / "2", {"b": 400, "c": 500}, file="OGG")), corpus(test))


def test_names_that_no_corpus_gave_say_nothing(tmp_path: Path) -> None:
    without: dict[str, Any] = {"columns": {"id": None}}
    one, two = make(tmp_path / "1", {"a": 300}, **without), make(tmp_path / "2", {"a": 500}, **without)
    assert corpus(one).utterances()[0].id == corpus(two).utterances()[0].id
    require_disjoint(corpus(one), corpus(two))


def test_clips_set_aside_for_testing_are_not_drawn(tmp_path: Path) -> None:
    settings = make(tmp_path, {f"{number:02d}": 200 + 25 * number for number in range(20)})
    test = Selection(settings, 12, 0)
    calibration = corpus(settings, n=64, aside=test)
    require_disjoint(calibration, open_corpus(test, None, "fail"))
    assert len(calibration.utterances()) == 8
    assert calibration.report["set_aside_for_testing"] == 12
    assert calibration.report["drawn"] == {"clips": 8, "of": 8, "seed": 0}
    few = corpus(settings, n=3, seed=4, aside=test)
    assert len(few.utterances()) == 3
    assert few.report["subset"]


def test_a_test_set_that_takes_all_leaves_none(tmp_path: Path) -> None:
    settings = make(tmp_path, {"a": 300, "b": 400})
    with pytest.raises(UserError, match="all 2 clips of own are in the test set, which leaves none to calibrate on"):
        corpus(settings, n=1, aside=Selection(settings, None, 0))


def test_what_is_set_aside_is_part_of_the_key(tmp_path: Path) -> None:
    settings = make(tmp_path, {"a": 300, "b": 400, "c": 500})
    keys = [Selection(settings, 1, 0, aside).key for aside in (None, Selection(settings, 1, 0))]
    assert keys[0] != keys[1]
