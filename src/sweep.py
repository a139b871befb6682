"""Hydra callback that keeps account of a sweep: failed points in their logs, and one table at the end."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from src.errors import UserError

log = logging.getLogger(__name__)


class SweepTable(Callback):
    """Remembers where the sweep writes, so that its table can be printed even when a point failed."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra in the process that launches the jobs."""
        type(self).folder = Path(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Writes why a point failed into its own log: of a whole sweep, Hydra reports the first failure only."""
        if job_return.status is JobStatus.FAILED and config.hydra.mode is RunMode.MULTIRUN:
            error = job_return._return_value  # `return_value` would raise it
            log.error("failed: %s", error, exc_info=None if isinstance(error, UserError) else error)


def show_sweep(*, failed: bool = False) -> None:
    """Prints the points of the sweep this process launched, best first, and how many left no record.

    Raises:
        UserError: the sweep had no point, because a pattern matched no choice.
    """
    folder = SweepTable.folder
    if folder is None or not folder.exists():
        return
    from src import console
    from src.records import RECORD

    jobs = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not jobs and not failed:
        raise UserError("command line", "the sweep has no points", "Check the patterns in glob(...): none matched")
    found = [json.loads((job / RECORD).read_text(encoding="utf-8")) for job in jobs if (job / RECORD).exists()]
    if found:
        console.show(found)
        console.show_measured(found)
    if len(found) < len(jobs):
        console.error(f"{len(jobs) - len(found)} of {len(jobs)} points failed; their logs are in {folder}")
