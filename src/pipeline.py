"""Runs one point: the chosen stages in order, each stored, logged and reused; then the record and its table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src import console
from src.point import Point, open_point
from src.records import build_record, save_record
from src.redaction import redact
from src.runtime import prepare, provenance
from src.settings import Settings
from src.stages import ALL_STAGES
from src.stages.base import Stage
from src.tracking import RunInfo, Tracker, open_tracker

log = logging.getLogger(__name__)


def run(settings: Settings) -> float | None:
    """Runs one point; returns its WER in percent where it was evaluated.

    Raises:
        UserError: a mistake in the settings, found before anything heavy where possible.
    """
    prepare(settings.device, settings.seed)
    versions = provenance()
    point = open_point(settings)
    stages = [stage for stage in ALL_STAGES if stage.wanted(point)]
    _check(stages, point)
    job_dir = Path(HydraConfig.get().runtime.output_dir)
    with open_tracker(settings.tracking, _run_info(point, job_dir, versions)) as tracker:
        for stage in stages:
            if not stage.entry(point).path.exists():
                tracker.start()  # a long stage is visible before its first figure
            stage.run(point)
            _log_once(stage, point, tracker)
    record = build_record(point, versions)
    path = save_record(record, Path(settings.output_dir), job_dir)
    if HydraConfig.get().mode is RunMode.RUN:
        console.show([record])
    log.info("record: %s", path)
    evaluated = record["results"].get("evaluate")
    return float(evaluated["wer"]) if evaluated else None


def _check(stages: Sequence[Stage], point: Point) -> None:
    """What can be found wrong before the first stage runs. Raises UserError."""
    made = {stage.name for stage in stages}
    for stage in stages:
        if not stage.entry(point).is_complete():
            stage.require(point, made)
            stage.check(point)


def _log_once(stage: Stage, point: Point, tracker: Tracker) -> None:
    """Logs a stored result unless this point's run has it already, so that a cached point costs no tracker start.

    Nothing that goes wrong here fails the job; what could not be logged is tried again when the point is run again.
    """
    tracking = point.settings.tracking
    if tracking.mode == "none":
        return
    key = {"run": point.fingerprint, "stage": stage.entry(point).fingerprint, **tracking.model_dump(exclude={"group"})}
    logged = point.store.entry("tracked", key)
    if logged.is_complete():
        return
    try:
        stage.log(point, tracker)
    except Exception as error:
        log.warning("could not prepare what %s logs (%s: %s); the job goes on", stage.name, type(error).__name__, error)
        return
    if not tracker.failed:
        logged.obtain(lambda _: None)


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
