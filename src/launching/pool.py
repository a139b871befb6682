"""Processes of a sweep on this machine that end with the one that launched them, whatever ends that.

Each job is a session of its own, which Ctrl-C on the terminal does not reach: the launcher, or where it is gone
:mod:`src.launching.watch`, ends them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Final

from submitit import AutoExecutor
from submitit.local.local import LocalExecutor, LocalJob

from src.launching import watch

_POLL_SECONDS: Final = 0.1
_CONTROLLER: Final = "submitit.local._local"  # runs a job


class Watcher:
    """A process that reads which groups begin and end, and ends what is left when this side of the pipe is closed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._process = process
        self._pipe = process.stdin.fileno()

    def begin(self) -> None:
        """Called in a new process before it becomes a job: so none is missed, whenever the launcher dies."""
        os.write(self._pipe, f"+{os.getpid()}\n".encode())

    def over(self, group: int) -> None:
        """A job ended by itself."""
        with suppress(BrokenPipeError):  # somebody ended the watcher
            os.write(self._pipe, f"-{group}\n".encode())

    def close(self, reap: Callable[[], object]) -> None:
        """Waits until whatever is left has ended; ``reap`` is called meanwhile, as the jobs are this one's children."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while self._process.poll() is None:
            reap()
            time.sleep(_POLL_SECONDS)


@contextmanager
def watched(reap: Callable[[], object]) -> Iterator[Watcher]:
    """A watcher for as long as jobs run."""
    command = [sys.executable, "-I", "-S", str(watch.__file__)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    watcher = Watcher(process)
    try:
        yield watcher
    finally:
        watcher.close(reap)


class PoolExecutor(LocalExecutor):  # type: ignore[misc]  # it has no types
    """submitit's executor of this machine, with the parameters of another; its jobs are watched.

    How submitit starts a job is private to it: the method that is replaced, and the module and the variables by which
    it runs one. It offers no other way to start one in a session of its own.
    """

    def __init__(self, plain: AutoExecutor, watcher: Watcher) -> None:
        """Raises RuntimeError where submitit starts its jobs in another way than this."""
        if "_submit_command" not in vars(LocalExecutor) or find_spec(_CONTROLLER) is None:
            raise RuntimeError(f"submitit has no {_CONTROLLER}; use the version of pyproject.toml")
        super().__init__(plain.folder)
        self.parameters = plain.parameters
        self._watcher = watcher

    def _submit_command(self, command: str) -> LocalJob[Any]:
        """As submitit does, in a session that the watcher knows of before anything runs in it."""
        given = self.parameters
        settings = {
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_TIMEOUT_S": str(int(60 * given.get("timeout_min", 2))),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(int(given.get("signal_delay_s", 30))),
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1" if given.get("stderr_to_stdout", False) else "",
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(given.get("gpus_per_node", 0)))),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", _CONTROLLER, str(self.folder)],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=self._watcher.begin,  # writes to a pipe and takes no lock
        )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=[0])
