"""Every number says where it was made, and a record never loses what it cannot read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from src.machine import provenance
from src.machine.provenance import combined, made, separate, stamped
from src.runs.records import build_record, save_record
from src.stages import ALL_STAGES
from src.stages.base import RESULT, obtain
from src.stages.decoding import _speed
from src.stages.latency import Latency
from src.stages.point import Point, open_point
from src.storage.store import Entry, Store
from tests.composed import composed

SMALL = (
    *("model=sandbox_whisper", "method=gptq", "wbits=4", "dataset.limit=2", "calib.n=2", "calib.propagate=fp"),
    *("evaluate.bootstrap_samples=100", "evaluate.probe_clips=0"),
    *("profile.repeats=1", "profile.tokens=1", "profile.max_load=1000", "tracking=none"),
)
A, B = "processor A", "processor B"


def opened(output: Path, *overrides: str) -> Point:
    return open_point(composed(*SMALL, f"output_dir={output}", *overrides))


def run_on(monkeypatch: pytest.MonkeyPatch, processor: str) -> None:
    monkeypatch.setattr(provenance, "cpu_model", lambda: processor)


def saved(point: Point, output: Path) -> dict[str, Any]:
    """The record as it is stored after a run of the point."""
    path = save_record(build_record(point), output, output / "job")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Output folder and record of a point made on one machine."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        run_on(patch, A)
        point = opened(output)
        for stage in ALL_STAGES:
            if stage.wanted(point):
                stage.run(point)
        return output, saved(point, output)


@pytest.fixture
def output(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(finished[0], tmp_path / "out")
    return tmp_path / "out"


def test_a_record_says_where_each_of_its_results_was_made(finished: tuple[Path, dict[str, Any]]) -> None:
    told = finished[1]["provenance"]
    assert told["differ"] == []
    assert (told["processor"], told["device"], told["threads"]) == (A, "cpu", 1)
    assert len(told["commit"]) == 40
    assert told["dirty"] in (True, False)
    assert told["packages"].keys() >= set(provenance.PACKAGES)
    stages = {"calibrate", "quantize", "evaluate", "profile", "latency"}
    parts = {"calibration_corpus", "corpus", "quantize.statistics", "transcripts", "prompt", "decoded_cost"}
    assert told["stages"].keys() == stages | parts | {"fp_quantize", "fp_transcripts"}
    assert all(places == [{}] for places in told["stages"].values())


def test_elsewhere_a_finished_point_has_its_score_and_its_own_latency_or_none(
    finished: tuple[Path, dict[str, Any]], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = finished[1]
    run_on(monkeypatch, B)
    point = opened(output)
    assert point.fingerprint == there["fingerprint"]
    assert [stage.name for stage in ALL_STAGES if stage.wanted(point) and not stage.is_done(point)] == ["latency"]
    absent = saved(point, output)
    assert absent["results"] == there["results"]
    assert absent["measured"]["latency"] is None
    assert "not measured on this machine" in absent["measured"]["refused"]["latency"]
    assert absent["measured"]["others"] == {"latency": [there["measured"]["latency"]]}, "it is not lost"
    assert absent["measured"]["evaluate"]["on"]["processor"] == A, "RTFx was seen there"
    Latency().run(point)
    own = saved(point, output)
    assert own["measured"]["others"] == absent["measured"]["others"]
    assert own["measured"]["latency"] not in absent["measured"]["others"]["latency"]
    assert own["provenance"]["differ"] == ["processor"]
    assert own["provenance"]["stages"]["latency"] == [{"processor": B}]
    assert own["provenance"]["stages"]["evaluate"] == [{"processor": A}]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_latency_is_of_a_number_of_threads(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    run_on(monkeypatch, A)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    assert Latency().is_done(opened(finished[0])) is (threads == 1)


def test_points_for_a_gpu_can_be_looked_up_where_there_is_none(tmp_path: Path) -> None:
    point = opened(tmp_path, "device=cuda")
    assert not Latency().is_done(point)
    assert point.fingerprint == opened(tmp_path).fingerprint, "the score is the same point's"


@pytest.mark.parametrize("how", ["damaged", "absent"])
@pytest.mark.parametrize("part", ["decoded_cost", "profile", "quantized", "calibration", "transcripts", "latency"])
def test_a_record_keeps_what_cannot_be_read_again(
    finished: tuple[Path, dict[str, Any]], output: Path, monkeypatch: pytest.MonkeyPatch, part: str, how: str
) -> None:
    run_on(monkeypatch, A)
    entry: Entry = getattr(opened(output), part)
    if how == "damaged":
        (entry.path / RESULT).write_text("{}")
    else:
        shutil.rmtree(entry.path)
    assert saved(opened(output, "stages=[evaluate]"), output) == finished[1]
    rebuilt = build_record(opened(output, "stages=[evaluate]")).plain
    assert {**rebuilt, "settings": None, "sha256": None} == {**finished[1], "settings": None, "sha256": None}


def test_without_a_record_what_is_damaged_is_said_to_be_missing(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_on(monkeypatch, A)
    point = opened(output)
    (output / "records" / f"{point.fingerprint}.json").write_text("{")
    (point.decoded_cost.path / RESULT).write_text("{}")
    assert saved(point, output)["results"]["profile"]["decoded"] is None
    assert f"the record is without what {point.decoded_cost.path} held, which is damaged" in caplog.text


def build_in_parts(entry: Entry, monkeypatch: pytest.MonkeyPatch, left: str) -> list[Any]:
    """Builds an entry on B after a build on A was killed that had left ``left`` to go on from."""

    def killed(folder: Path) -> dict[str, Any]:
        (folder / "batches.progress").write_text(left)
        raise KeyboardInterrupt

    run_on(monkeypatch, A)
    with pytest.raises(KeyboardInterrupt):
        obtain(entry, killed)
    run_on(monkeypatch, B)
    obtain(entry, lambda _: {})
    return [place["processor"] for place in made(entry.path, "it")["it"]]


def test_a_build_that_went_on_elsewhere_was_made_in_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    assert build_in_parts(store.entry("a", {}), monkeypatch, "a batch") == [A, B]
    assert build_in_parts(store.entry("b", {}), monkeypatch, "") == [B], "nothing of A's is in it"


def test_a_speed_is_of_one_machine() -> None:
    places = [{"processor": each, "cores": 2, "threads": 1, "device": "cpu"} for each in (A, B)]
    seconds = {"total": 2.0}
    whole, mixed = _speed(10.0, seconds, places[:1], 0.1), _speed(10.0, seconds, places, None)
    assert (whole["rtfx"], whole["on"]["processor"], whole["on"]["load"]) == (5.0, A, 0.1)
    assert mixed["rtfx"] is None
    assert f"1 threads of {A} and 1 threads of {B}" in mixed["refused"]
    assert _speed(10.0, seconds, [places[0], places[0]], None)["rtfx"] == 5.0, "other code, the same machine"


def test_what_is_put_together_comes_apart_again() -> None:
    first = {"commit": "a", "packages": {"torch": "1", "numpy": "2"}, "threads": 1}
    second = {**first, "packages": {"torch": "2", "numpy": "2"}}
    results = {"quantize": [first], "evaluate": [first, second], "unknown": []}
    record = combined(results)
    assert record["differ"] == ["packages.torch"]
    assert record["stages"]["evaluate"] == [{"packages.torch": "1"}, {"packages.torch": "2"}]
    assert (record["commit"], record["packages"]) == ("a", {"numpy": "2"})
    assert separate(json.loads(json.dumps(record))) == results


def test_a_provenance_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    entry = Store(tmp_path).entry("a", {})
    entry.obtain(stamped(lambda _: None))
    assert len(made(entry.path, "a")["a"]) == 1
    file = entry.path / provenance.FILE
    file.write_text(file.read_text().replace('"cpu"', '"gpu"'))
    assert made(entry.path, "a") == {"a": []}
