"""What both launchers share: how a point is handed to submitit, and what became of its job."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import DictConfig, OmegaConf, open_dict

from src.errors import UserError
from src.machine.logs import returned_or_raised
from src.runs.attempt import LOST, ended_on_request, lost
from src.runs.failures import FAILURE, Failure, JobPaths
from src.storage.redaction import guard_output, redact_error, without_secrets
from src.storage.secret_references import conceal, without_secrets_in

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit import Job as SubmittedJob

log = logging.getLogger(__name__)

_OURS = frozenset({"submitit_folder", "max_num_timeout"})  # not among the resources of a job


class LostJobError(Exception):
    """A job that ended without a result."""


@dataclass(frozen=True)
class Launched:
    """One point and its job: the overrides it was launched with, its number in the sweep."""

    job: SubmittedJob[Any]
    overrides: list[str]
    number: int

    @property
    def result(self) -> Path:
        path: Path = self.job.paths.result_pickle
        return path


class JobLauncher(BaseSubmititLauncher):  # type: ignore[misc]  # it has no types
    """A launcher of hydra-submitit-launcher that counts a job without a result as failed, and goes on."""

    def __call__(self, *arguments: Any, **named: Any) -> JobReturn:
        """The job, in a process of its own. What it prints and returns, and submitit stores, holds no secret."""
        guard_output()
        try:
            returned: JobReturn = super().__call__(*arguments, **named)
        except Exception as error:
            redact_error(error)
            raise
        for config in (returned.cfg, returned.hydra_cfg):
            if config is not None:
                conceal(config)
        if isinstance(raised := returned_or_raised(returned), BaseException):
            redact_error(raised)
        return returned

    def announce(self, overrides: Sequence[Sequence[str]], first: int) -> Path:
        """Logs the points; returns the folder of their logs."""
        folder = Path(str(self.configuration.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(overrides, first):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(each)))
        return folder

    def executor(self) -> AutoExecutor:
        """What takes the jobs.

        Raises:
            UserError: submitit would write a secret into its files.
        """
        import submitit

        for name, value in self.params.items():
            if without_secrets(str(value)) != str(value):
                problem = "it holds a key or token, which would be written into files of the jobs"
                remedy = "Set it as a variable of the environment instead: jobs have what this process has"
                raise UserError(f"hydra.launcher.{name}", problem, remedy)
        cluster = self._EXECUTOR
        retries = {f"{cluster}_{name}": self.params[name] for name in ("max_num_timeout",) if name in self.params}
        executor = submitit.AutoExecutor(self.params["submitit_folder"], cluster=cluster, **retries)
        executor.update_parameters(**_resources(self.params, cluster))
        return executor

    def arguments(self, overrides: Sequence[str], number: int) -> tuple[Any, ...]:
        """What a job's call takes."""
        return without_secrets_in(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state()

    def outcome(self, launched: Launched) -> JobReturn:
        """What the job returned; one that failed before or after its point is counted as lost."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            outcome = launched.job.results()[0]
            assert isinstance(outcome, JobReturn)
        except FailedJobError as error:
            return self.lost(launched, _within(str(error)))
        except UncompletedJobError:
            return self.lost(launched, Failure(f"it ended without a result (job {launched.job.job_id})", LOST))
        except Exception as error:  # a result that cannot be read
            return self.lost(launched, Failure.of(error))
        if outcome.status is JobStatus.COMPLETED:
            log.info("\t#%d done", launched.number)
            return outcome
        failure = Failure.of(returned_or_raised(outcome))
        log.warning("\t#%d failed: %s", launched.number, failure.reason)
        if not (self._job(launched)[0].folder / FAILURE).exists():  # it failed before it could say so
            self._record(launched, failure)
        return outcome

    def lost(self, launched: Launched, failure: Failure) -> JobReturn:
        """The failure of a job that did not say itself how it ended."""
        log.warning("\t#%d failed: %s", launched.number, failure.reason)
        self._record(launched, failure)
        failed = JobReturn(overrides=launched.overrides, status=JobStatus.FAILED)
        failed.return_value = LostJobError(failure.reason)
        return failed

    def stopped(self, launched: Launched) -> None:
        """A job that this process ended, as it was asked to end itself."""
        ended_on_request(self._job(launched)[0])

    @property
    def configuration(self) -> DictConfig:
        assert isinstance(self.config, DictConfig)
        return self.config

    def _record(self, launched: Launched, failure: Failure) -> None:
        job, config = self._job(launched)
        lost(job, config, launched.overrides, failure)

    def _job(self, launched: Launched) -> tuple[JobPaths, DictConfig]:
        """Where the job writes, and its configuration; its log is what submitit caught of it where it wrote none."""
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.configuration, launched.overrides)
        with open_dict(config):
            config.hydra.job.num = launched.number
            config.hydra.job.id = launched.job.job_id
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        own = folder / f"{config.hydra.job.name}.log"
        return JobPaths(Path(config.output_dir), folder, own if own.exists() else launched.job.paths.stderr), config


def _resources(params: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    """Settings under the names that submitit knows: those of every cluster as they are, its own with a prefix."""
    shared = set(OmegaConf.structured(BaseQueueConf).keys())
    return {
        name if name in shared else f"{cluster}_{name}": value for name, value in params.items() if name not in _OURS
    }


def _within(text: str) -> Failure:
    """Why a job failed that raised, from submitit's message, which holds the traceback between two lines."""
    trace = re.split(r"^-{10,}$", text, flags=re.MULTILINE)[1].strip()
    last = trace.rpartition("\n")[2]
    return Failure(last, last.partition(":")[0], trace)
