"""Launches a sweep as processes of this machine, so many at a time, and waits for every one, also for those that die.

The launcher of hydra-submitit-launcher starts all of them at once, however many points there are, each with as many
threads as there are processors; and they outlive it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from hydra.core.utils import JobReturn

from src.errors import UserError
from src.launching.jobs import JobLauncher, Launched
from src.machine.interrupts import Ended

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.2
_THREADS: Final = "OMP_NUM_THREADS"


class LocalPoolLauncher(JobLauncher):
    """See the module docstring. ``array_parallelism``: processes at a time, which share the processors evenly."""

    _EXECUTOR = "local"

    def __init__(self, array_parallelism: object, **params: Any) -> None:
        super().__init__(**params)
        self._asked = array_parallelism

    def __call__(self, *arguments: Any, **named: Any) -> JobReturn:
        """The job, in its own process: SIGTERM, which submitit would have it ignore, ends it as Ctrl-C does."""
        signal.signal(signal.SIGTERM, _end)
        return super().__call__(*arguments, **named)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns how each ended, in order. None of them outlives this process.

        Raises:
            UserError: the number of processes is none.
        """
        most = self._asked
        if not isinstance(most, int) or most < 1:
            problem = f"{most!r} is no number of processes"
            raise UserError("hydra.launcher.array_parallelism", problem, "Use 1 or more, e.g. 2")
        folder = self.announce(job_overrides, initial_job_idx)
        log.info("%d at a time; logs in %s", most, folder)
        os.environ.setdefault(_THREADS, str(max(1, (os.cpu_count() or 1) // most)))
        running, ended = list[Launched](), dict[int, JobReturn]()
        waiting = deque(enumerate(map(list, job_overrides), initial_job_idx))
        executor = self.executor()
        from src.launching.pool import PoolExecutor, watched  # submitit's import takes its time

        try:
            with watched(reap=lambda: [each.job.done() for each in running]) as watcher:
                pool = PoolExecutor(executor, watcher)
                while waiting or running:
                    while waiting and len(running) < most:
                        number, overrides = waiting.popleft()
                        job = pool.submit(self, *self.arguments(overrides, number))
                        running.append(Launched(job, overrides, number))
                    time.sleep(_POLL_SECONDS)
                    for each in [each for each in running if each.job.done()]:
                        running.remove(each)
                        watcher.over(int(each.job.job_id))
                        ended[each.number] = self.outcome(each)
        except KeyboardInterrupt:
            log.warning("interrupted; %d jobs were ended", len(running))
            for each in running:
                self.stopped(each)
            raise
        return [ended[number] for number in sorted(ended)]


def _end(number: int, _frame: FrameType | None) -> None:
    """Ends a job where it is, once: what follows must not disturb what it still writes."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Ended(number)
