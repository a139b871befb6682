"""What sweepers have in common that launch several rounds of jobs, each of what the last one told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.records import Record, read_record
from src.runs.records import RECORD
from src.runs.sweep import SweepTable
from src.storage.secret_references import without_secrets_in

PLACES: Final = ("hydra", "output_dir", "tracking", "sweep")  # where points go and who is told: they are the same


class RoundsSweeper(Sweeper):
    """Base of these: the launcher, numbers of jobs that go on from round to round, and the sweep's folder."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before :meth:`sweep`."""
        self._loader, self._config = hydra_context.config_loader, config
        self.hydra_context, self.config = hydra_context, config  # what Hydra's check of a batch reads
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._launched = 0
        SweepTable.goes_on = True

    def parsed(self, arguments: Sequence[str]) -> list[Override]:
        return OverridesParser.create(config_loader=self._loader).parse_overrides(without_secrets_in([*arguments]))

    def launch(self, batch: Sequence[Sequence[str]]) -> Sequence[JobReturn]:
        """Launches these jobs as one sweep, and waits for them."""
        self.validate_batch_is_legal(batch)
        results = self._launcher.launch(batch, initial_job_idx=self._launched)
        self._launched += len(batch)
        return results

    @property
    def common(self) -> dict[str, Any]:
        """What all points have in common, as it was composed; without where they go and who is told."""
        plain: Any = OmegaConf.to_container(self._config, resolve=False)
        return {key: value for key, value in plain.items() if key not in PLACES}

    @property
    def folder(self) -> Path:
        """The sweep's."""
        return Path(self._config.hydra.sweep.dir)

    def save_config(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, self.folder / "multirun.yaml")


def record_of(result: JobReturn) -> Record:
    """The record that a job made."""
    assert result.hydra_cfg is not None  # set by whatever ran the job
    return read_record(Path(str(result.hydra_cfg.hydra.runtime.output_dir)) / RECORD)
