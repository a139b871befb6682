"""Times are those of a machine that does nothing else, or they are not told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.machine import load
from src.machine.load import BusyError, alone, require_quiet, watched
from src.runs.records import build_record
from src.stages.latency import Latency
from src.stages.measure import Measure
from src.stages.point import open_point
from src.stages.profile import Profile
from src.stages.quantize import Quantize
from tests.composed import composed

SMALL = ("model=sandbox_whisper", "method=rtn", "profile.repeats=1", "profile.tokens=1", "stages=[quantize,profile]")


@pytest.fixture
def busy() -> Iterator[None]:
    """Another process on every processor."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    time.sleep(0.3)  # until they have started
    yield
    for each in others:
        each.kill()
        each.wait()


def test_what_others_compute_is_seen_and_what_this_process_and_its_children_do_is_not(busy: None) -> None:
    with pytest.raises(BusyError, match=r"other processes kept \d+\.\d\d of \d+ processors busy, and 0\.25 may be"):
        require_quiet(os.cpu_count() or 1, None)
    with alone(1, most=1000) as beside:
        time.sleep(0.2)
    assert beside.others is not None
    assert beside.others > 0.5 * (os.cpu_count() or 1)


def test_own_work_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    machine = iter([[0] * 8, [2 * ticks, 0, ticks, 5 * ticks, ticks, 0, 0, 0]])  # 3 s computed, 6 s idle or waiting
    own, clock = iter([0.0, 2.0]), iter([0.0, 4.0])
    monkeypatch.setattr(load, "_counters", lambda: next(machine))
    monkeypatch.setattr(load, "processor_seconds", lambda: next(own))
    monkeypatch.setattr("src.machine.load.time.perf_counter", lambda: next(clock))
    with watched() as beside:
        pass
    assert beside.others == pytest.approx((3 - 2) / 4, abs=0.02)


def test_a_system_that_does_not_tell_is_not_taken_for_a_quiet_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_COUNTERS", tmp_path / "stat")
    with pytest.raises(BusyError, match="does not tell"):
        require_quiet(1, None)
    (tmp_path / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")  # as some sandboxes have it
    with pytest.raises(BusyError, match="does not tell"):
        require_quiet(1, None)
    require_quiet(1, 4.0)  # whoever sets a limit takes the figure


def test_beside_other_work_nothing_is_measured_the_record_says_why_and_it_is_made_up_for(
    tmp_path: Path,
    busy: None,
) -> None:
    settings = composed(*SMALL, "profile.runtimes=[torch]", f"output_dir={tmp_path}")
    point = open_point(settings)
    for stage in (Quantize(), Profile(), Latency(), Measure()):
        stage.run(point)
    assert not list((tmp_path / "cache").glob("latency/*/result.json"))
    assert not list((tmp_path / "cache").glob("measure*/*/result.json"))
    record = build_record(point).plain
    assert record["results"]["profile"]["bops"] > 0
    assert record["measured"]["latency"] is None
    assert record["measured"]["refused"].keys() == {"latency", "measure"}
    assert "processors busy" in record["measured"]["refused"]["latency"]
    allowed = settings.model_copy(update={"profile": settings.profile.model_copy(update={"max_load": 1000.0})})
    again = open_point(allowed)
    assert again.fingerprint == point.fingerprint
    Latency().run(again)
    latency = build_record(again).plain["measured"]["latency"]
    assert latency["token_ms"] > 0
    assert latency["load"] > 0.5, "the figure says what it was taken beside"
    refused = build_record(open_point(settings)).plain["measured"]
    assert refused["latency"] is None, "and is none where that is not allowed"
