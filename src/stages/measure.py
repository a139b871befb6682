"""Measure: the reference utterance in other runtimes, each in a process of its own, beside the bytes it moves."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from src.machine.load import alone
from src.machine.progress import progress
from src.models.families import dimensions_of
from src.models.loading import load_config, load_graph
from src.profiling.cost_model import CostModel, Workload
from src.profiling.measured import MeasuredRow, build_row, step_bytes
from src.profiling.measured_table import COLUMNS, cells
from src.profiling.runtimes.job import Measurement
from src.profiling.runtimes.launch import measure, measure_bandwidth
from src.runtimes.folder import file_bytes
from src.stages.base import RESULT, Stage, obtain, read_json
from src.stages.point import Point
from src.stages.profile import prompt_length
from src.stages.timed import Timed, timed
from src.storage.store import Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)


class Measure(Stage):
    """See the module docstring. It runs where ``profile.runtimes`` names any; ``stages`` does not name it."""

    name = "measure"
    bound = True

    def wanted(self, point: Point) -> bool:
        """Whether the point is profiled and runtimes are named."""
        return "profile" in point.settings.stages and bool(point.settings.profile.runtimes)

    def entry(self, point: Point) -> Entry:
        """One entry per set of runtimes, each with what it runs, and machine."""
        return point.store.entry("measure", {"measured": [each.key for each in timed(point)]})

    def parts(self, point: Point) -> dict[str, Entry]:
        return {**{f"measured_{each.name}": each.entry for each in timed(point)}, **super().parts(point)}

    def needs(self, point: Point) -> dict[str, Entry]:
        """The profile, whose bytes are set against the times."""
        return {"profile": point.profile}

    def check(self, point: Point) -> None:
        """Whether each runtime is installed and can hold the model. Raises UserError."""
        for each in timed(point):
            each.check()

    def build(self, point: Point, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - figures only
        """One row a runtime (:class:`src.profiling.measured.MeasuredRow`), and the bandwidth they are compared with."""
        runtimes, most = timed(point), point.settings.profile.max_load
        with alone(runtimes[0].threads, most):
            bandwidth = measure_bandwidth(runtimes[0].threads)
        rows = [asdict(_row(each, bandwidth["read_gbs"])) for each in progress(runtimes, "measure, runtimes")]
        about = point.settings.profile.model_dump(include={"seconds", "tokens", "repeats"})
        return {**about, "model": point.settings.model.name, "bandwidth": bandwidth, "rows": rows}

    def log(self, point: Point, tracker: Tracker) -> None:
        tracker.table(self.name, "runtimes", list(COLUMNS), [cells(row) for row in self.result(point)["rows"]])


def _row(each: Timed, limit_gbs: float) -> MeasuredRow:
    """Exports what has to be, and measures it; a measurement that is stored is not repeated."""
    settings = each.point.settings
    prompt = prompt_length(each.point)
    folder = each.export()

    def build(_: Path) -> dict[str, Any]:
        log.info("measure: %s, %s, %s", settings.model.name, each.engine, each.precision)
        with alone(each.threads, settings.profile.max_load) as beside:
            measured = measure(each.job(folder, prompt))
        return asdict(replace(measured, load=beside.others))

    measured = Measurement(**read_json(obtain(each.entry, build, settings.device) / RESULT))
    dimensions = dimensions_of(load_config(settings.model))
    work = Workload(settings.profile.seconds, settings.profile.tokens, prompt)
    moved = step_bytes(
        CostModel(dimensions, load_graph(settings.model), work, {}), each.engine, each.runtime, each.specs()
    )
    size = None if folder is None else file_bytes(folder)
    return build_row(each.engine, each.precision, size, moved, measured, limit_gbs)
