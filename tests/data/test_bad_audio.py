"""Clips that cannot be recognised: refused, or left out and listed with the reason; never dropped in silence."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from src.data.corpora import Corpus, open_corpus
from src.data.selection import Selection
from src.errors import UserError
from src.settings import DatasetSettings
from src.storage.store import open_store
from tests.data.clips import clip, tone, write
from tests.data.sets import dataset


def wav(samples: list[float]) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.asarray(samples, np.float32), 16_000, format="WAV", subtype="FLOAT")
    return stream.getvalue()


BAD = {
    "corrupt": b"no audio at all",
    "empty": b"",
    "zero-length": tone(0, 440),
    "not-finite": wav([0.1, float("nan")] * 99),
    "silent": wav([0.0] * 999),
    "truncated": tone(0.5, 440)[:3_000],
    "over-long": tone(1.2, 440),
}
GOOD = {"fine": tone(0.5, 440), "fine-too": tone(0.4, 900, 44_100, 2, "FLAC"), "at-the-limit": tone(1.0, 440)}


def corpus(settings: DatasetSettings, policy: Any, **drawn: Any) -> Corpus:
    return open_corpus(Selection(settings, drawn.get("n"), drawn.get("seed", 0)), None, policy)


def make(tmp_path: Path, clips: Mapping[str, bytes | None]) -> DatasetSettings:
    rows = [clip(name, audio=audio) if audio is not None else {**clip(name)} for name, audio in clips.items()]
    for row, audio in zip(rows, clips.values(), strict=True):
        if audio is None:
            row["audio"]["bytes"] = None
    write(tmp_path / "own" / "test-0.parquet", rows)
    return dataset(tmp_path, max_seconds=1.0)


@pytest.mark.parametrize("kind", [*BAD, "missing"])
def test_fail_names_the_clip_the_reason_and_the_remedy(tmp_path: Path, kind: str) -> None:
    settings = make(tmp_path, {**GOOD, "culprit": BAD.get(kind)})
    with pytest.raises(UserError) as caught:
        corpus(settings, "fail")
    assert f"1 of 4 clips of own have audio that is of no use: 'culprit' ({kind}: " in str(caught.value)
    assert "on_bad_audio=skip" in caught.value.remedy


def test_skip_leaves_out_every_kind_and_tells_each(tmp_path: Path) -> None:
    settings = make(tmp_path, {**BAD, **GOOD, "missing": None})
    found = corpus(settings, "skip")
    assert [utterance.id for utterance in found.utterances()] == sorted(GOOD)
    told = found.report["bad_audio"]
    assert told["count"] == len(BAD) + 1
    assert {name: reason.partition(":")[0] for name, reason in told["clips"].items()} == {
        name: name for name in [*BAD, "missing"]
    }
    assert told["kinds"] == dict.fromkeys(sorted([*BAD, "missing"]), 1)
    assert found.report["utterances"] == 3
    assert found.report["hours"] == pytest.approx(1.9 / 3600, abs=1e-4)
    assert not found.report["subset"]


def test_without_a_limit_no_clip_is_too_long(tmp_path: Path) -> None:
    settings = make(tmp_path, {"long": tone(40, 440, 8_000)}).model_copy(update={"max_seconds": None})
    assert corpus(settings, "fail").utterances()[0].seconds == 40


def test_a_draw_does_not_replace_what_it_cannot_use(tmp_path: Path) -> None:
    settings = make(tmp_path, {f"{number}": tone(0.1 * (number % 3), 440) for number in range(30)})
    found = corpus(settings, "skip", n=12)
    drawn = [*found.report["bad_audio"]["clips"], *(utterance.id for utterance in found.utterances())]
    assert len(drawn) == len(set(drawn)) == 12
    assert found.report["drawn"] == {"clips": 12, "of": 30, "seed": 0}
    assert found.report["subset"]
    assert all(int(name) % 3 == 0 for name in found.report["bad_audio"]["clips"])
    larger = corpus(settings, "skip", n=20)
    assert {u.id for u in found.utterances()} < {u.id for u in larger.utterances()}


def test_nothing_usable_is_an_error_even_where_clips_may_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 of 2 clips of own .*'a' \(silent.*; 'b' \(empty"):
        corpus(make(tmp_path, {"a": BAD["silent"], "b": b""}), "skip")


def test_many_are_counted_and_a_few_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"9 of 10 clips .* 'bad4' \(empty: it has no bytes\); and 4 more"):
        corpus(make(tmp_path, {"fine": GOOD["fine"], **{f"bad{number}": b"" for number in range(9)}}), "fail")


def test_an_inventory_is_made_once_and_serves_either_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = make(tmp_path / "data", {**GOOD, "bad": BAD["silent"]})
    store = open_store(tmp_path / "outputs")
    first = open_corpus(Selection(settings, None, 0), store, "skip")
    with pytest.raises(UserError, match="'bad'"):
        open_corpus(Selection(settings, None, 0), store, "fail")
    again = open_corpus(Selection(settings, None, 0), store, "skip")
    assert caplog.text.count("reading 4 of 4 clips") == 1
    assert again.report == first.report
    assert [u.encoded() for u in again.utterances()] == [u.encoded() for u in first.utterances()]
    assert len(list((tmp_path / "outputs" / "cache" / "corpus").glob("*/manifest.json"))) == 1
