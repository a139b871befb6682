"""What a tracker's run was told is marked once the run is finished, and only where nothing of it was lost."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from src.runs.telling import telling
from src.stages.point import open_point
from src.tracking import RunInfo
from tests.composed import composed


@pytest.mark.parametrize("metric", ["wer", "unknown"])
def test_a_result_is_marked_once_the_run_that_has_it_is_finished(tmp_path: Path, metric: str) -> None:
    point = open_point(composed("method=rtn", "tracking=offline", f"output_dir={tmp_path}"))
    mark = point.store.entry("tracked", {"run": "one"})
    info = RunInfo("one", "one", None, "point", (), {}, tmp_path)
    with suppress(RuntimeError), telling(point.settings.tracking, info) as told:
        told.once(mark, "evaluate", lambda tracker: tracker.log("evaluate", {metric: 1.0}))
        assert not mark.path.exists()
        raise RuntimeError("a later stage failed")
    assert mark.is_complete() == (metric == "wer")
