"""Launches a sweep as a SLURM array and waits for every job, also for those that end without a word.

The launcher of hydra-submitit-launcher asks SLURM's accounting database how jobs fare; where there is none, it waits
for ever for a job that was killed, and otherwise it leaves at the first such job. This one asks the controller, counts
such a job as failed, and waits for the others.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import DictConfig, OmegaConf, open_dict

from src.attempt import lost
from src.errors import UserError
from src.failures import FAILURE, End, Job
from src.launching.queue import Queue, explain

if TYPE_CHECKING:
    from submitit import Job as SubmittedJob

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0


class LostJobError(Exception):
    """A job that ended without a result."""


@dataclass(frozen=True)
class _Launched:
    """One point and its job: the overrides it was launched with, its number in the sweep."""

    job: SubmittedJob[Any]
    overrides: list[str]
    number: int

    @property
    def result(self) -> Path:
        path: Path = self.job.paths.result_pickle
        return path


class SlurmArrayLauncher(SlurmLauncher):  # type: ignore[misc]  # it has no types
    """See the module docstring. Takes the same settings."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits the jobs and returns how each ended, in order.

        Raises:
            UserError: SLURM is not installed here, or refuses the jobs.
        """
        launched = self._submit([list(each) for each in job_overrides], initial_job_idx)
        try:
            ended = self._wait(launched)
        except KeyboardInterrupt:
            array = launched[0].job.job_id.partition("_")[0]
            log.warning("the jobs go on in SLURM; `scancel %s` stops them", array)
            raise
        return [ended[each.job.job_id] for each in launched]

    def _submit(self, overrides: list[list[str]], first: int) -> list[_Launched]:
        """Hands all points to SLURM as one array."""
        import submitit

        config = self._config
        folder = Path(str(config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(first, first + len(overrides))
        for number, each in zip(numbers, overrides, strict=True):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(each)))
        try:
            executor = submitit.AutoExecutor(self.params["submitit_folder"], cluster="slurm", **_retries(self.params))
            executor.update_parameters(**_resources(self.params))
            state = [Singleton.get_state()] * len(overrides)
            ids = [f"job_id_for_{number}" for number in numbers]
            jobs = executor.map_array(self, overrides, ["hydra.sweep.dir"] * len(ids), list(numbers), ids, state)
        except RuntimeError as error:  # no SLURM here, or what sbatch says
            problem = f"SLURM does not take the jobs ({' '.join(str(error).split())})"
            raise UserError("hydra.launcher", problem, "Check the settings hydra.launcher.*, see `sinfo`") from error
        log.info("SLURM job %s; logs in %s", jobs[0].job_id.partition("_")[0], folder)
        return [_Launched(*each) for each in zip(jobs, overrides, numbers, strict=True)]

    def _wait(self, launched: Sequence[_Launched]) -> dict[str, JobReturn]:
        """Ends of all jobs by id."""
        waiting, ended, queue = {each.job.job_id: each for each in launched}, dict[str, JobReturn](), Queue()
        while waiting:
            time.sleep(_POLL_SECONDS)
            for name, each in list(waiting.items()):
                if _arrived(each.result):
                    ended[name] = self._outcome(waiting.pop(name))
            for name, state in queue.lost(set(waiting)).items():
                ended[name] = self._lost(waiting.pop(name), explain(name, state))
        return ended

    def _outcome(self, launched: _Launched) -> JobReturn:
        """What the job returned; one that failed before or after its point is counted as lost."""
        from submitit.core.utils import FailedJobError

        try:
            outcome = launched.job.results()[0]
            assert isinstance(outcome, JobReturn)
        except FailedJobError as error:
            return self._lost(launched, _within(str(error)))
        except Exception as error:  # a result that cannot be read
            return self._lost(launched, End.of(error))
        if outcome.status is JobStatus.COMPLETED:
            log.info("\t#%d done", launched.number)
            return outcome
        end = End.of(outcome._return_value)  # `return_value` would raise it
        log.warning("\t#%d failed: %s", launched.number, end.reason)
        if not (self._job(launched)[0].folder / FAILURE).exists():  # it failed before it could say so
            self._record(launched, end)
        return outcome

    def _lost(self, launched: _Launched, end: End) -> JobReturn:
        log.warning("\t#%d failed: %s", launched.number, end.reason)
        self._record(launched, end)
        failed = JobReturn(overrides=launched.overrides, status=JobStatus.FAILED)
        failed.return_value = LostJobError(end.reason)
        return failed

    def _record(self, launched: _Launched, end: End) -> None:
        job, config = self._job(launched)
        lost(job, config, launched.overrides, end)

    def _job(self, launched: _Launched) -> tuple[Job, DictConfig]:
        """Where the job writes, and its configuration; its log is what SLURM caught of it where it wrote none."""
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self._config, launched.overrides)
        with open_dict(config):
            config.hydra.job.num = launched.number
            config.hydra.job.id = launched.job.job_id
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        own = folder / f"{config.hydra.job.name}.log"
        return Job(Path(config.output_dir), folder, own if own.exists() else launched.job.paths.stderr), config

    @property
    def _config(self) -> DictConfig:
        assert isinstance(self.config, DictConfig)
        return self.config


def _retries(params: Mapping[str, Any]) -> dict[str, Any]:
    return {f"slurm_{name}": params[name] for name in ("max_num_timeout",) if name in params}


def _resources(params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names that submitit knows: those of every cluster as they are, SLURM's own with a prefix."""
    shared = set(OmegaConf.structured(BaseQueueConf).keys())
    others = {"submitit_folder", "max_num_timeout"}
    return {name if name in shared else f"slurm_{name}": value for name, value in params.items() if name not in others}


def _arrived(result: Path) -> bool:
    """Whether a result is there; a shared file system is asked anew."""
    try:
        folder = result.parent
        folder.chmod(folder.stat().st_mode)
    except OSError:
        pass
    return result.exists()


def _within(text: str) -> End:
    """The end of a job that raised, from submitit's message, which holds the traceback between two lines."""
    trace = re.split(r"^-{10,}$", text, flags=re.MULTILINE)[1].strip()
    last = trace.rpartition("\n")[2]
    return End(last, last.partition(":")[0], trace)
