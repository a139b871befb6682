"""What SLURM says of jobs: asked of the controller, so that it works without an accounting database."""

from __future__ import annotations

import getpass
import logging
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from src.runs.attempt import LOST
from src.runs.failures import Failure

log = logging.getLogger(__name__)

GONE: Final = "GONE"  # the controller has forgotten the job, as it does some minutes after its end
_ENDED: Final = {
    "BOOT_FAIL": "its node could not be started",
    "CANCELLED": "cancelled",
    "COMPLETED": "it ended without a result",
    "DEADLINE": "its deadline passed",
    "FAILED": "it died",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "out of memory",
    "PREEMPTED": "preempted and not put back in the queue",
    "REVOKED": "revoked",
    "TIMEOUT": "out of time",
    GONE: "SLURM knows it no longer",
}
_SIGNALLED: Final = 128  # what a shell adds to the number of the signal that ended its child
_TIMEOUT_SECONDS: Final = 60.0
_FIRST_SECONDS, _LAST_SECONDS = 2.0, 30.0  # between two questions: quick for short jobs, easy on the controller later


@dataclass
class Queue:
    """Jobs that are waited for; asks the controller now and then.

    Attributes:
        grace: seconds from the end of a job until its result must have come through a shared file system.
    """

    grace: float = 15.0
    _begun: float = field(default_factory=time.monotonic)
    _asked: float = float("-inf")
    _ended: dict[str, float] = field(default_factory=dict)

    def lost(self, waiting: set[str]) -> dict[str, str]:
        """Those of the jobs without a result that ended longer than the grace ago, with their states."""
        now = time.monotonic()
        pause = min(_LAST_SECONDS, max(_FIRST_SECONDS, (now - self._begun) / 10))
        if now - self._asked < pause:
            return {}
        self._asked = now
        states = _states()
        if states is None:
            return {}
        over = {job: state for job in waiting if (state := states.get(job, GONE)) in _ENDED}
        self._ended = {job: self._ended.get(job, now) for job in over}  # one that was put back starts afresh
        return {job: state for job, state in over.items() if now - self._ended[job] >= self.grace}


def explain(job: str, state: str) -> Failure:
    """Why a job ended without a result."""
    signal = _signal(_ask("scontrol", "--oneliner", "show", "job", job) or "")
    where = f"(SLURM job {job}: {state})"
    if signal is not None and state in ("FAILED", "COMPLETED"):
        return Failure(f"killed by signal {signal} {where}", f"killed: signal {signal}")
    kind = LOST if state in (GONE, "COMPLETED") else state.lower().replace("_", " ")
    return Failure(f"{_ENDED[state]} {where}", kind)


def _states() -> Mapping[str, str] | None:
    """State of each of the user's jobs by id; None where the controller does not answer, which is not their end."""
    told = _ask("squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T")
    if told is None:
        return None
    return dict(line.strip().split("|", 1) for line in told.splitlines() if "|" in line)


def _signal(details: str) -> int | None:
    """The signal that ended a job, from what the controller still knows of it."""
    found = re.search(r"\bExitCode=(\d+):(\d+)", details)
    if found is None:
        return None
    code, signal = int(found[1]), int(found[2])
    return signal or (code - _SIGNALLED if code > _SIGNALLED else None)


def _ask(*command: str) -> str | None:
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s does not answer: %s", command[0], error)
        return None
    return asked.stdout
