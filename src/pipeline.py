"""Runs points: the chosen stages in order, each stored, logged and reused; then the record and its table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src import console
from src.composite import Composite
from src.composite_record import build_composite_record, log_composite
from src.digest import sha256_file
from src.errors import UserError
from src.point import Point, open_point
from src.records import build_record, save_record
from src.redaction import redact
from src.runtime import prepare, provenance
from src.settings import Settings
from src.stages import ALL_STAGES
from src.stages.base import RESULT, Stage
from src.store import Entry
from src.tracking import RunInfo, Tracker, open_tracker

log = logging.getLogger(__name__)


def run(study: Settings | Composite) -> float | None:
    """Runs one point, or one for each test set of a composite; returns its WER, or their mean, in percent.

    Raises:
        UserError: a mistake in the settings, found before anything heavy where possible.
    """
    members = study.members if isinstance(study, Composite) else (study,)
    prepare(members[0].device, members[0].seed)
    versions = provenance()
    points = _checked(members)
    job_dir = Path(HydraConfig.get().runtime.output_dir)
    if isinstance(study, Composite):
        record = _run_composite(study.name, points, versions, job_dir)
    else:
        record = _run_point(points[0], versions, job_dir)
    path = save_record(record, Path(members[0].output_dir), job_dir)
    if HydraConfig.get().mode is RunMode.RUN:
        console.show([record])
        console.show_measured([record])
    log.info("record: %s", path)
    evaluated = record["results"].get("evaluate")
    return float(evaluated["wer"]) if evaluated else None


def _run_composite(name: str, points: Sequence[Point], versions: dict[str, Any], job_dir: Path) -> dict[str, Any]:
    """Runs the members one after the other and saves their records; returns the record of their mean."""
    records = []
    for point in points:
        prepare(point.settings.device, point.settings.seed)  # as if it ran alone
        records.append(_run_point(point, versions, job_dir))
        save_record(records[-1], Path(point.settings.output_dir), job_dir / point.settings.dataset.name)
    record = build_composite_record(name, points, records)
    _log_composite(record, points[0], _run_info(points[0], job_dir, versions))
    return record


def _run_point(point: Point, versions: dict[str, Any], job_dir: Path) -> dict[str, Any]:
    """Runs the chosen stages of one point; returns its record."""
    with open_tracker(point.settings.tracking, _run_info(point, job_dir, versions)) as tracker:
        for stage in _stages(point):
            if not stage.entry(point).path.exists():
                tracker.start()  # a long stage is visible before its first figure
            stage.run(point)
            _log_once(stage, point, tracker)
    return build_record(point, versions)


def _stages(point: Point) -> list[Stage]:
    return [stage for stage in ALL_STAGES if stage.wanted(point)]


def _checked(members: Sequence[Settings]) -> list[Point]:
    """The points of all members, each of which can run. Raises UserError, which names all sets that cannot be read."""
    points, absent = [], {}
    for settings in members:
        try:
            point = open_point(settings)
            check(_due(point), point)
            points.append(point)
        except UserError as error:
            if len(members) == 1 or not error.field.startswith("dataset"):
                raise
            absent[settings.dataset.name] = error
    if absent:
        first = next(iter(absent.values()))
        problem = f"{len(absent)} of {len(members)} sets cannot be read: {', '.join(absent)} ({first.problem})"
        name = next(iter(absent))
        raise UserError(first.field, problem, f"Download them, or leave each out as in ~dataset.members.{name}")
    for point in points:  # clips are read when nothing else can be wrong
        for stage in _due(point):
            stage.check_data(point)
    return points


def _due(point: Point) -> list[Stage]:
    return [stage for stage in _stages(point) if not stage.is_done(point)]


def check(due: Sequence[Stage], point: Point) -> None:
    """What can be found wrong without reading a clip, before the first of the stages runs. Raises UserError."""
    made = {stage.name for stage in _stages(point)}
    for stage in due:
        stage.require(point, made)
        stage.check(point)


def _log_once(stage: Stage, point: Point, tracker: Tracker) -> None:
    """Logs a stored result unless this point's run has it already, so that a cached point costs no tracker start."""
    entry = stage.entry(point)
    result = {"stage": entry.fingerprint, "result": sha256_file(entry.path / RESULT)}
    logged = _logged(point, point.fingerprint, result)
    if logged is not None:
        _log(logged, tracker, stage.name, lambda: stage.log(point, tracker))


def _log_composite(record: dict[str, Any], point: Point, info: RunInfo) -> None:
    """Logs the means and one table row a member as a run of their own, once."""
    evaluated = record["results"].get("evaluate")
    logged = _logged(point, record["fingerprint"], {"stage": "composite"})
    if evaluated is None or logged is None:
        return
    identity = f"{record['method']}-{record['bits']}-{record['fingerprint']}"
    label = f"{record['model']}-{record['method']}-{record['bits']}-{record['dataset']}"
    tags = (*info.tags[:-1], record["dataset"])
    config = {**info.config, **record["settings"]}
    info = replace(info, id=identity, name=label, job_type="composite", tags=tags, config=config)
    with open_tracker(point.settings.tracking, info) as tracker:
        _log(logged, tracker, "composite", lambda: log_composite(record, tracker))


def _logged(point: Point, run: str, what: Mapping[str, str]) -> Entry | None:
    """The mark that a run has been told of ``what``; None where it has it, or where nothing is tracked."""
    tracking = point.settings.tracking
    if tracking.mode == "none":
        return None
    mark = point.store.entry("tracked", {"run": run, **what, **tracking.model_dump(exclude={"group"})})
    return None if mark.is_complete() else mark


def _log(mark: Entry, tracker: Tracker, what: str, action: Callable[[], None]) -> None:
    """Logs and sets the mark.

    Nothing that goes wrong here fails the job; what could not be logged is tried again when the point is run again.
    """
    try:
        action()
    except Exception as error:
        log.warning("could not prepare what %s logs (%s: %s); the job goes on", what, type(error).__name__, error)
        return
    if not tracker.failed:
        mark.obtain(lambda _: None)


def _run_info(point: Point, job_dir: Path, versions: dict[str, Any]) -> RunInfo:
    settings = point.settings
    sweep = job_dir.parent if HydraConfig.get().mode is RunMode.MULTIRUN else None
    group = settings.tracking.group or (f"{sweep.parent.name}_{sweep.name}" if sweep else None)
    tags = (settings.model.name, settings.method_name, settings.bits_name, settings.dataset.name)
    return RunInfo(
        id=f"{settings.method_name}-{settings.bits_name}-{point.fingerprint}",
        name=point.label,
        group=group,
        job_type="point",
        tags=tags,
        config=redact({**settings.model_dump(mode="json"), "provenance": versions}),
        directory=Path(settings.output_dir),
    )
