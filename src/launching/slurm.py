"""Launches a sweep as a SLURM array and waits for every job, also for those that end without a word.

The launcher of hydra-submitit-launcher asks SLURM's accounting database how jobs fare; where there is none, it waits
for ever for a job that was killed, and otherwise it leaves at the first such job. This one asks the controller, counts
such a job as failed, and waits for the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hydra.core.utils import JobReturn

from src.errors import UserError
from src.launching.jobs import JobLauncher, Launched
from src.launching.queue import Queue, explain
from src.runs.sweep import SweepTable

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0


class SlurmArrayLauncher(JobLauncher):
    """See the module docstring. Takes the settings of hydra-submitit-launcher's."""

    _EXECUTOR = "slurm"

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
            SweepTable.elsewhere = f"the others go on in SLURM, where `scancel {array}` stops them"
            raise
        return [ended[each.job.job_id] for each in launched]

    def _submit(self, overrides: list[list[str]], first: int) -> list[Launched]:
        """Hands all points to SLURM as one array."""
        folder, numbers = self.announce(overrides, first), range(first, first + len(overrides))
        arguments = [self.arguments(each, number) for number, each in zip(numbers, overrides, strict=True)]
        try:
            jobs = self.executor().map_array(self, *zip(*arguments, strict=True))
        except RuntimeError as error:  # no SLURM here, or what sbatch says
            problem = f"SLURM does not take the jobs ({' '.join(str(error).split())})"
            raise UserError("hydra.launcher", problem, "Check the settings hydra.launcher.*, see `sinfo`") from error
        log.info("SLURM job %s; logs in %s", jobs[0].job_id.partition("_")[0], folder)
        return [Launched(*each) for each in zip(jobs, overrides, numbers, strict=True)]

    def _wait(self, launched: Sequence[Launched]) -> dict[str, JobReturn]:
        """Ends of all jobs by id."""
        waiting, ended, queue = {each.job.job_id: each for each in launched}, dict[str, JobReturn](), Queue()
        while waiting:
            time.sleep(_POLL_SECONDS)
            for name, each in list(waiting.items()):
                if _arrived(each.result):
                    ended[name] = self.outcome(waiting.pop(name))
            for name, state in queue.lost(set(waiting)).items():
                ended[name] = self.lost(waiting.pop(name), explain(name, state))
        return ended


def _arrived(result: Path) -> bool:
    """Whether a result is there; a shared file system is asked anew."""
    try:
        folder = result.parent
        folder.chmod(folder.stat().st_mode)
    except OSError:
        pass
    return result.exists()
