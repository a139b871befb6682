from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from src.reporting.changed import aligned, by_frequency, changed
from src.reporting.clips import encoded_clips
from src.reporting.failed import failed
from src.reporting.panels import corpus, panels
from src.reporting.reading import damaged_entries, read_records
from src.scoring.wer import score
from src.storage.integrity import state
from src.storage.store import write_json
from src.text.normalizers import ENGLISH_RULES
from tests.composed import composed
from tests.reporting.recorded import points, record, worst_row, write, write_failure, write_worst
from tests.utterances import load_utterances

WORDS = st.lists(st.sampled_from(["alpha", "bravo", "delta"]), min_size=1, max_size=6).map(" ".join)


def test_words_are_aligned_as_they_are_scored() -> None:
    assert aligned(["the cat sat", "the cat", ""], ["the bat", "", "a"]) == [
        ["the", ["cat", "bat"], ["sat", ""]],
        [["the cat", ""]],
        [["", "a"]],
    ]


@given(WORDS, WORDS)
def test_an_alignment_holds_both_texts_and_as_many_errors_as_the_score(reference: str, said: str) -> None:
    (parts,) = aligned([reference], [said])
    pairs = [part if isinstance(part, list) else [part, part] for part in parts]
    assert [" ".join(filter(None, side)) for side in zip(*pairs, strict=True)] == [reference, said]
    different = [part for part in parts if isinstance(part, list)]
    errors = sum(max(len(before.split()), len(after.split())) for before, after in different)
    assert errors == score([reference], [said], ENGLISH_RULES).utterance_errors[0]


def test_changed_transcripts_are_the_stored_worst_without_those_that_only_look_different(tmp_path: Path) -> None:
    point, other = record("rtn", "clean", 2.0), record("gptq", "clean", 2.0)
    write(tmp_path, point, other)
    rows = [worst_row("a", "A cat!", "a bat", "A cat."), worst_row("b", "a dog", "A DOG", "a dog.")]
    write_worst(tmp_path, point, *rows)
    found, notes = changed(tmp_path, panels(points(tmp_path)), 5)
    (row,) = found["rtn-clean"]
    assert row.clip == ("clean 10_utterances_200_words", "a")
    assert (row.to_reference, row.fp_to_reference, row.to_fp) == (
        ["a", ["cat", "bat"]],
        ["a cat"],
        ["a", ["cat", "bat"]],
    )
    assert notes == [f"The transcripts of 1 of 2 points are no longer stored in {tmp_path}/cache."]


def test_damaged_transcripts_are_named_once_also_where_a_note_vouches_for_them(tmp_path: Path) -> None:
    point = record("rtn", "clean", 2.0)
    write_worst(tmp_path, point, worst_row("a", "A cat!", "a bat", "A cat."))
    [entry] = (tmp_path / "cache" / "evaluate").glob("[0-9a-f]*[0-9a-f]")
    write(tmp_path, point | {"entries": {"evaluate": entry.name}})
    file = entry / "worst.json"
    before, kept = file.stat(), file.read_text()
    file.write_text(kept.replace("bat", "cat"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    note = {"entries": {f"evaluate/{entry.name}": state(entry)}}
    write_json(tmp_path / "cache" / "finished" / "0" / "note.json", note)
    records, _ = read_records(tmp_path)
    found, notes = changed(tmp_path, panels(points(tmp_path)), 5)
    assert (found["rtn-clean"], notes) == ([], ["The transcripts of 1 of 1 points are left out, as damaged."])
    [told] = damaged_entries(tmp_path, records)
    assert f"evaluate/{entry.name} (checksum of worst.json differs)" in told


def test_audio_is_the_clip_that_was_transcribed_and_absence_has_a_reason(tmp_path: Path) -> None:
    settings = composed("dataset=sandbox_clean").dataset
    clip = load_utterances(settings, 0)[3]
    point = write(tmp_path, record("rtn", "clean", 2.0))
    shown = panels(points(point))
    name = corpus(shown[0])
    wanted = {(name, clip.id): clip.text, (name, "clean-00001"): "another text", (name, "gone"): "x"}
    found, absent = encoded_clips(tmp_path, shown, wanted, 1.0)
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(found[name, clip.id])))
    assert rate == 16_000
    np.testing.assert_allclose(waveform, clip.waveform(), atol=1 / 2**15)
    assert absent.keys() == wanted.keys() - found.keys()
    assert not encoded_clips(tmp_path, shown, wanted, 0.0)[0]


def test_audio_of_a_set_that_is_not_here_is_told(tmp_path: Path) -> None:
    point = record("rtn", "clean", 2.0)
    point["settings"]["dataset"]["root"] = "/nowhere/at/all"
    shown = panels(points(write(tmp_path, point)))
    found, absent = encoded_clips(tmp_path, shown, {(corpus(shown[0]), "a"): "x"}, 1.0)
    assert not found
    assert "/nowhere/at/all" in absent[corpus(shown[0]), "a"]


def test_clips_that_most_points_changed_come_first(tmp_path: Path) -> None:
    two = [record(method, "clean", 2.0) for method in ("rtn", "gptq")]
    write(tmp_path, *two)
    write_worst(tmp_path, two[0], worst_row("a", "one", "two", "one"), worst_row("b", "one", "two", "one"))
    write_worst(tmp_path, two[1], worst_row("b", "one", "six", "one"))
    found, _ = changed(tmp_path, panels(points(tmp_path)), 5)
    assert [utterance for _, utterance in by_frequency(found)] == ["b", "a"]


def test_failures_are_told_until_the_point_has_all_its_results(tmp_path: Path) -> None:
    write_failure(tmp_path, "rtn-clean")
    write_failure(tmp_path, "other", reason="disk full", time="2025-01-01T00:00:00+00:00")
    (tmp_path / "failures" / "damaged.json").write_text("{", encoding="utf-8")
    assert [each["reason"] for each in failed(tmp_path)][:2] == ["disk full", "ValueError: no such thing"]
    point = record("rtn", "clean", 2.0)
    half = {**point, "results": {"quantize": point["results"]["quantize"]}}
    write(tmp_path, half)
    assert len(failed(tmp_path)) == 3
    write(tmp_path, point)
    assert {each["fingerprint"] for each in failed(tmp_path)} == {"other", "damaged"}


@pytest.mark.parametrize("text", ["[]", '{"failure": null}', "\ufeff{}"])
def test_a_failure_that_cannot_be_read_is_one_of_unknown_reason(tmp_path: Path, text: str) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "x.json").write_text(text, encoding="utf-8")
    (found,) = failed(tmp_path)
    assert "x.json tells of a failure but cannot be read" in json.dumps(found["reason"])
