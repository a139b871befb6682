"""What a stored result tells of the time that it took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from src.stages.base import TIMES, obtain, read_json
from src.storage.store import PROGRESS_SUFFIX, Store


def _compute(seconds: float) -> dict[str, Any]:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return {}


def test_processor_time_is_of_the_result_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    inner, outer = (store.entry("trial", {"result": name}) for name in ("inner", "outer"))

    def build(folder: Path) -> dict[str, Any]:
        obtain(inner, lambda folder: _compute(0.6))
        time.sleep(0.5)
        return _compute(0.2)

    obtain(outer, build)
    times = read_json(outer.path / TIMES)
    assert times["processor_seconds"] == pytest.approx(0.2, abs=0.15), "neither what it waited for nor the other result"
    assert times["seconds"] >= 1.3
    assert read_json(inner.path / TIMES)["processor_seconds"] == pytest.approx(0.6, abs=0.15)


def test_the_rest_of_a_result_does_not_pass_for_the_whole(tmp_path: Path) -> None:
    entry = Store(tmp_path).entry("trial", {"result": "in two runs"})

    def die(folder: Path) -> dict[str, Any]:
        (folder / f"blocks{PROGRESS_SUFFIX}").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(entry, die)
    obtain(entry, lambda folder: _compute(0.1))
    assert read_json(entry.path / TIMES)["processor_seconds"] is None
