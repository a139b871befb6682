"""Runs points: the chosen stages in order, each stored, logged and reused; then the record and its table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src.errors import UserError
from src.machine.process import prepare
from src.machine.provenance import here
from src.records import Record, read_whole
from src.runs import attempt
from src.runs.composite_record import build_composite_record, composite_fingerprint, log_composite, run_id
from src.runs.foundation import foundation
from src.runs.memo import remember
from src.runs.records import build_record, present, save_record
from src.runs.telling import group_of, mark_of, telling
from src.settings import Settings
from src.settings.composite import Composite, members
from src.stages import ALL_STAGES
from src.stages.base import RESULT, Stage
from src.stages.point import Point, open_point
from src.storage.digest import sha256_once
from src.storage.redaction import redact
from src.storage.store import Entry, fingerprint
from src.tracking import RunInfo

log = logging.getLogger(__name__)

_COMPOSITE = {"stage": "composite"}


def run(study: Settings | Composite) -> Record:
    """Runs one point, or one for each test set of a composite; returns its record, or that of their mean.

    Raises:
        UserError: a mistake in the settings, found before anything heavy where possible.
    """
    chosen = members(study)
    prepare(chosen[0].device, chosen[0].seed)
    points = _checked(chosen)
    name = composite_fingerprint(study.name, points) if isinstance(study, Composite) else points[0].fingerprint
    attempt.identify(name, chosen[0], here(chosen[0].device))
    for entry in foundation(points):  # so that nothing vouches for what is damaged, and a stage makes it again
        entry.discard_damaged()
    job_dir = Path(HydraConfig.get().runtime.output_dir)
    if isinstance(study, Composite):
        record = _run_composite(study.name, points, job_dir)
    else:
        record = _run_point(points[0], job_dir)
    present(record, save_record(record, Path(chosen[0].output_dir), job_dir))
    _remember(study, points, record)
    return record


def finished(study: Settings | Composite) -> Record | None:
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
    try:
        record = {each: read_whole(folder / f"{each}.json") for each in names}[name]
    except ValueError:
        return None
    timed = record.measured.runtimes or record.measured.others.get("runtimes")
    if points[0].settings.profile.runtimes and not timed:
        return None
    _remember(study, points, record)  # so that it is found at once from now on
    return record


def _remember(study: Settings | Composite, points: Sequence[Point], record: Record) -> None:
    """Leaves a note, where all times are of this machine, and the tracker has been told of everything.

    Else the next run of these points tries again.
    """
    if not all(stage.is_done(point) for point in points for stage in _stages(point) if stage.bound):
        return
    marks = _marks(points, record)
    if all(mark.is_complete() for mark in marks):
        remember(study, points, record.fingerprint, [*foundation(points), *marks])


def _run_composite(name: str, points: Sequence[Point], job_dir: Path) -> Record:
    """Runs the members one after the other and saves their records; returns the record of their mean."""
    records = []
    for point in points:
        prepare(point.settings.device, point.settings.seed)  # as if it ran alone
        records.append(_run_point(point, job_dir))
        save_record(records[-1], Path(point.settings.output_dir), job_dir / point.settings.dataset.name)
    record = build_composite_record(name, points, records)
    _log_composite(record, points[0], _run_info(points[0], job_dir))
    return record


def _run_point(point: Point, job_dir: Path) -> Record:
    """Runs the chosen stages of one point; returns its record."""
    with telling(point.settings.tracking, _run_info(point, job_dir)) as told:
        for stage in _stages(point):
            attempt.enter(stage.name)
            if not stage.bound and not stage.entry(point).path.exists():
                told.tracker.start()  # a long stage is visible before its first figure
            stage.run(point)
            if stage.name not in point.refused:
                told.once(_mark(point, point.fingerprint, _result(stage, point)), stage.name, partial(stage.log, point))
        record = build_record(point)
        made = {"provenance": record.provenance}
        told.once(_provenance_mark(point, record), "provenance", lambda tracker: tracker.config(made))
    return record


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


def _result(stage: Stage, point: Point) -> dict[str, str]:
    entry = stage.entry(point)
    return {"stage": entry.fingerprint, "result": sha256_once(entry.path / RESULT)}


def _marks(points: Sequence[Point], record: Record) -> list[Entry]:
    """All that the tracker has to be told of these points; nothing where there is none."""
    marks = [_mark(point, point.fingerprint, _result(stage, point)) for point in points for stage in _stages(point)]
    if record.members and record.results.evaluate:
        marks.append(_mark(points[0], record.fingerprint, _COMPOSITE))
    if not record.members:
        marks.append(_provenance_mark(points[0], record))
    return [mark for mark in marks if mark is not None]


def _provenance_mark(point: Point, record: Record) -> Entry | None:
    return _mark(point, record.fingerprint, {"stage": "provenance", "result": fingerprint(record.provenance)})


def _log_composite(record: Record, point: Point, info: RunInfo) -> None:
    """Logs the means and one table row a member as a run of their own, once."""
    evaluated = record.results.evaluate
    if evaluated is None:
        return
    label = f"{record.model}-{record.method}-{record.bits}-{record.dataset}"
    tags = (*info.tags[:-1], record.dataset)
    config = {**info.config, **record.settings, "provenance": record.provenance}
    info = replace(info, id=run_id(record), name=label, job_type="composite", tags=tags, config=config)
    with telling(point.settings.tracking, info) as told:
        told.once(_mark(point, record.fingerprint, _COMPOSITE), "composite", partial(log_composite, record, evaluated))


def _mark(point: Point, run: str, what: Mapping[str, str]) -> Entry | None:
    return mark_of(point.store, point.settings.tracking, run, what)


def _run_info(point: Point, job_dir: Path) -> RunInfo:
    settings = point.settings
    sweep = job_dir.parent if HydraConfig.get().mode is RunMode.MULTIRUN else None
    tags = (settings.model.name, settings.method_name, settings.bits_name, settings.dataset.name)
    return RunInfo(
        id=f"{settings.method_name}-{settings.bits_name}-{point.fingerprint}",
        name=point.label,
        group=group_of(settings.tracking, sweep),
        job_type="point",
        tags=tags,
        config=redact(settings.model_dump(mode="json", exclude={"sweep"})),
        directory=Path(settings.output_dir),
    )
