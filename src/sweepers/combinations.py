"""All combinations of the swept values; with ``sweep.only_missing`` those that are not finished."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from src.errors import UserError
from src.machine.interrupts import held
from src.records import Record
from src.runs.memo import list_finished, stored_record
from src.settings.composite import from_hydra

log = logging.getLogger(__name__)


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, before any launcher: what is finished is shown with the rest and not submitted."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._only_missing = config.sweep.only_missing is True
        if self._only_missing:
            assert self.launcher is not None
            self.launcher = OnlyMissing(self.launcher)
            self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def validate_batch_is_legal(self, jobs: Sequence[Sequence[str]]) -> None:
        """Composes every job once; with ``only_missing`` the launcher does so."""
        if not self._only_missing:
            super().validate_batch_is_legal(jobs)


class OnlyMissing(Launcher):
    """Passes on to another launcher the jobs whose results are not stored yet."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        """Called before :meth:`launch`; the other launcher is set up already."""
        self._loader, self._config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits what is missing, says how many are not, and puts the records of these into the sweep's folder."""
        missing: list[Sequence[str]] = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            record = self._record(overrides)
            if record is None:
                missing.append(overrides)
            else:
                list_finished(Path(self._config.hydra.sweep.dir), number, record)
        finished = len(job_overrides) - len(missing)
        log.info("%d of %d points are finished and not submitted again", finished, len(job_overrides))
        return self._launcher.launch(missing, initial_job_idx) if missing else []

    def _record(self, overrides: Sequence[str]) -> Record | None:
        """The record of a job that is finished; a mistake in its settings is left to the job to tell."""
        composed = copy.deepcopy(self._loader.load_sweep_config(self._config, list(overrides)))
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        try:
            study = from_hydra(composed)
            record = stored_record(study)
            if record is None:
                with held():
                    from src.runs.pipeline import finished

                record = finished(study)
        except UserError:
            return None
        return record
