"""Hydra callbacks: account of a sweep (failed points in their logs, the tables at the end), and clean job files."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from src.errors import UserError
from src.machine.logs import returned_or_raised
from src.runs.failures import FAILURE, Failure
from src.runs.hydra_folders import make
from src.storage.checksum import RECORD
from src.storage.redaction import redact_text, redact_yaml, without_secrets
from src.storage.secret_patterns import REDACTED
from src.storage.secret_references import conceal

log = logging.getLogger(__name__)

_AGAIN = "sweep.only_missing=true"  # launches the points that have no record


class SweepTable(Callback):
    """Remembers where the sweep writes, so that its tables can be printed however it ends."""

    folder: Path | None = None
    elsewhere: str | None = None  # what becomes of jobs that do not end with this process
    shown = False  # whether its points have been shown already, all that are worth it
    goes_on = False  # whether the same command runs what is missing, and no more, without being told to

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra in the process that launches the jobs."""
        type(self).folder = Path(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Writes why a point failed into its own log: of a whole sweep, Hydra reports the first failure only."""
        if job_return.status is JobStatus.FAILED and config.hydra.mode is RunMode.MULTIRUN:
            error = returned_or_raised(job_return)
            log.error("failed: %s", error, exc_info=None if isinstance(error, UserError) else error)


class CleanFiles(Callback):
    """Takes keys, tokens and the home directory out of what Hydra writes of a job: its yamls, and its message.

    A folder with such a name is refused, before Hydra makes it.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Nothing is written yet: what stands for a secret is written in its place, and handed to a sweep's jobs."""
        _make_folder(config)
        conceal(config)

    on_multirun_start = on_run_start

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """The yamls are written, and the job has not begun."""
        hydra = config.hydra
        if hydra.output_subdir is not None:
            for file in sorted((Path(hydra.runtime.output_dir) / hydra.output_subdir).glob("*.yaml")):
                redact_yaml(file)
        if hydra.mode is RunMode.MULTIRUN:
            redact_yaml(Path(hydra.sweep.dir) / "multirun.yaml")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:  # noqa: ARG002 - Hydra's call
        """Hydra prints the overrides of a job that failed."""
        job_return.overrides = [redact_text(override) for override in job_return.overrides or ()]


def _make_folder(config: DictConfig) -> None:
    """Ends the process where that cannot be: an error that a callback raises is but a warning to Hydra."""
    from src.terminal import console

    try:
        make(config)
    except UserError as error:
        console.error(str(error))
        sys.exit(1)


def show_sweep(error: Exception | None = None) -> bool:
    """Prints the points of the sweep this process launched, best first, and those that failed, with the way to retry.

    ``error`` is what ended the sweep; returns whether it is told thereby, as the failure of one of the points.

    Raises:
        UserError: the sweep had no point, because a pattern matched no choice.
    """
    from src.terminal import console

    folder = SweepTable.folder
    if folder is None or not folder.exists():
        return False
    jobs = _jobs(folder)
    if not jobs and error is None:
        raise UserError("command line", "the sweep has no points", "Check the patterns in glob(...): none matched")
    found, failed = _show_points(folder, jobs)
    if found < len(jobs) and (error or not SweepTable.goes_on):
        way = "To go on" if SweepTable.goes_on else "To run just those again"
        console.error(f"{len(jobs) - found} of {len(jobs)} points left no record. {way}:")
        _show_retry()
    return error is not None and _is_told(error, [record["failure"] for record in failed])


def show_interrupted() -> bool:
    """Prints what is done of the sweep this process launched, and the command that goes on; False without a sweep."""
    from src.terminal import console

    folder = SweepTable.folder
    if folder is None or not folder.exists():
        return False
    found, _ = _show_points(folder, _jobs(folder))
    elsewhere = SweepTable.elsewhere
    others = ". To go on with the others" if elsewhere is None else f"; {elsewhere}. For those that end without one"
    told = "1 point of this sweep has" if found == 1 else f"{found} points of this sweep have"
    console.error(f"interrupted; {told} a record{others}:")
    _show_retry()
    return True


def _jobs(folder: Path) -> list[Path]:
    """The folders of the sweep's jobs; ``hydra.sweep.subdir`` may put one into another."""
    begun = {path.parent for name in (".hydra", RECORD, FAILURE) for path in folder.glob(f"**/{name}")}
    return sorted((path for path in begun if begun.isdisjoint(path.parents)), key=_number)


def _show_points(folder: Path, jobs: Sequence[Path]) -> tuple[int, list[dict[str, Any]]]:
    """Prints the points that have a record and those that failed; returns how many have one, and the failures."""
    from src.records import read_record
    from src.terminal import console

    found = [read_record(job / RECORD) for job in jobs if (job / RECORD).exists()]
    failed = {job: json.loads((job / FAILURE).read_text(encoding="utf-8")) for job in jobs if (job / FAILURE).exists()}
    if found and not SweepTable.shown:
        console.show(list({record.fingerprint: record for record in found}.values()))  # a later one says more
        console.show_measured(found)
    if failed:
        console.show_failures(
            [(str(job.relative_to(folder)), record, _log_of(job, folder)) for job, record in failed.items()], folder
        )
    return len(found), list(failed.values())


def _show_retry() -> None:
    """Prints the command that runs the points without a record."""
    from src.terminal import console

    line = _retry()
    console.command(line)
    if without_secrets(line) != line:
        console.error(f"put in what {REDACTED} stands for, or write '${{oc.env:NAME}}' and set the variable NAME")


def _is_told(error: Exception, failures: list[dict[str, Any]]) -> bool:
    """Whether an exception is one of the failures: the launcher raises the first of them."""
    reasons = (Failure.of(error).reason, str(error))
    return any(failure["reason"] in reasons for failure in failures)


def _log_of(job: Path, sweep: Path) -> str:
    """The job's own log, or what SLURM caught of a job that wrote none; relative to the sweep's folder."""
    found = [*job.glob("*.log"), *sweep.glob(f".submitit/*/*_{job.name}_0_log.err")]
    return str(found[0].relative_to(sweep)) if found else "-"


def _number(job: Path) -> tuple[int, str]:
    return int(job.name) if job.name.isdigit() else 0, job.name


def _retry() -> str:
    """The command line that this process was started with, for the points without a record."""
    given = [argument for argument in sys.argv[1:] if argument != _AGAIN]
    return shlex.join(["python", "-m", "src.main", *given, *(() if SweepTable.goes_on else (_AGAIN,))])
