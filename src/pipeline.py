"""Runs points: the chosen stages in order, each stored, logged and reused; then the record and its table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src import attempt
from src.composite import Composite
from src.composite_record import build_composite_record, composite_fingerprint, log_composite, run_id
from src.digest import sha256_file
from src.errors import UserError
from src.finished import members, remember
from src.point import Point, open_point
from src.provenance import here
from src.records import build_record, present, save_record
from src.redaction import redact
from src.runtime import prepare
from src.settings import Settings
from src.stages import ALL_STAGES
from src.stages.base import RESULT, Stage, read_json
from src.store import Entry, fingerprint
from src.tracking import RunInfo, Tracker, open_tracker

log = logging.getLogger(__name__)


def run(study: Settings | Composite) -> dict[str, Any]:
    """Runs one point, or one for each test set of a composite; returns its record, or that of their mean.

    Raises:
        UserError: a mistake in the settings, found before anything heavy where possible.
    """
    chosen = members(study)
    prepare(chosen[0].device, chosen[0].seed)
    points = _checked(chosen)
    name = composite_fingerprint(study.name, points) if isinstance(study, Composite) else points[0].fingerprint
    attempt.identify(name, chosen[0], here(chosen[0].device))
    job_dir = Path(HydraConfig.get().runtime.output_dir)
    if isinstance(study, Composite):
        record = _run_composite(study.name, points, job_dir)
    else:
        record = _run_point(points[0], job_dir)
    present(record, save_record(record, Path(chosen[0].output_dir), job_dir))
    if _is_whole(points, record):
        remember(study, points, record)
    return record


def finished(study: Settings | Composite) -> dict[str, Any] | None:
    """The record of a study whose chosen stages are all stored; None where something is left to do.

    Times of another machine will do: whoever asks may be where none of the points would run.

    Raises:
        UserError: a mistake in the settings.
    """
    points = [open_point(settings) for settings in members(study)]
    if any(not stage.bound for point in points for stage in _due(point)):
        return None
    name = composite_fingerprint(study.name, points) if isinstance(study, Composite) else points[0].fingerprint
    names = {name, *(point.fingerprint for point in points)}
    folder = Path(points[0].settings.output_dir) / "records"
    if not all((folder / f"{each}.json").exists() for each in names):
        return None
    record = read_json(folder / f"{name}.json")
    if points[0].settings.profile.runtimes and not _tells_runtimes(record):
        return None
    if _is_whole(points, record):
        remember(study, points, record)  # so that it is found at once from now on
    return record


def _tells_runtimes(record: Mapping[str, Any]) -> bool:
    measured = record.get("measured", {})
    return bool(measured.get("runtimes") or measured.get("others", {}).get("runtimes"))


def _run_composite(name: str, points: Sequence[Point], job_dir: Path) -> dict[str, Any]:
    """Runs the members one after the other and saves their records; returns the record of their mean."""
    records = []
    for point in points:
        prepare(point.settings.device, point.settings.seed)  # as if it ran alone
        records.append(_run_point(point, job_dir))
        save_record(records[-1], Path(point.settings.output_dir), job_dir / point.settings.dataset.name)
    record = build_composite_record(name, points, records)
    _log_composite(record, points[0], _run_info(points[0], job_dir))
    return record


def _run_point(point: Point, job_dir: Path) -> dict[str, Any]:
    """Runs the chosen stages of one point; returns its record."""
    with open_tracker(point.settings.tracking, _run_info(point, job_dir)) as tracker:
        for stage in _stages(point):
            attempt.enter(stage.name)
            if not stage.bound and not stage.entry(point).path.exists():
                tracker.start()  # a long stage is visible before its first figure
            stage.run(point)
            if stage.name not in point.refused:
                _log_once(stage, point, tracker)
        record = build_record(point)
        _log_provenance(record, point, tracker)
    return record


def _log_provenance(record: Mapping[str, Any], point: Point, tracker: Tracker) -> None:
    """Tells the run where its results were made, once."""
    what = {"stage": "provenance", "result": fingerprint(record["provenance"])}
    logged = _logged(point, record["fingerprint"], what)
    if logged is not None:
        _log(logged, tracker, "provenance", lambda: tracker.config({"provenance": record["provenance"]}))


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
    logged = _logged(point, point.fingerprint, _result(stage, point))
    if logged is not None:
        _log(logged, tracker, stage.name, lambda: stage.log(point, tracker))


def _result(stage: Stage, point: Point) -> dict[str, str]:
    entry = stage.entry(point)
    return {"stage": entry.fingerprint, "result": sha256_file(entry.path / RESULT)}


def _is_whole(points: Sequence[Point], record: dict[str, Any]) -> bool:
    """Whether all times are of this machine, and the tracker, where there is one, has all results.

    Else the next run of these points tries again.
    """
    if not all(stage.is_done(point) for point in points for stage in _stages(point) if stage.bound):
        return False
    single = all(
        _logged(point, point.fingerprint, _result(stage, point)) is None for point in points for stage in _stages(point)
    )
    composite = "members" in record and "evaluate" in record["results"]
    return single and not (composite and _logged(points[0], record["fingerprint"], {"stage": "composite"}) is not None)


def _log_composite(record: dict[str, Any], point: Point, info: RunInfo) -> None:
    """Logs the means and one table row a member as a run of their own, once."""
    evaluated = record["results"].get("evaluate")
    logged = _logged(point, record["fingerprint"], {"stage": "composite"})
    if evaluated is None or logged is None:
        return
    label = f"{record['model']}-{record['method']}-{record['bits']}-{record['dataset']}"
    tags = (*info.tags[:-1], record["dataset"])
    config = {**info.config, **record["settings"], "provenance": record["provenance"]}
    info = replace(info, id=run_id(record), name=label, job_type="composite", tags=tags, config=config)
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


def _run_info(point: Point, job_dir: Path) -> RunInfo:
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
        config=redact(settings.model_dump(mode="json", exclude={"sweep"})),
        directory=Path(settings.output_dir),
    )
