"""A real SLURM cluster for the tests, and what an administrator or bad luck may do to its jobs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from src.project import ROOT

SCRIPT = ROOT / "launchers" / "slurm_cluster.sh"
NEEDED = ("slurmctld", "slurmd", "munged", "srun")


def absent() -> str | None:
    """Why no cluster can be started here; None where one can."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "only root can start SLURM's daemons"


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Looks ten times a second."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """A running cluster below ``folder``."""

    folder: Path

    @classmethod
    def start(cls, folder: Path, nodes: int, slots: int = 1) -> Cluster:
        """A cluster whose nodes have room for so many jobs of one processor."""
        subprocess.run([SCRIPT, "start", folder, str(nodes), str(slots), str(_free_ports(nodes + 1))], check=True)
        return cls(folder)

    def stop(self) -> None:
        subprocess.run([SCRIPT, "stop", self.folder], check=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *command: str) -> str:
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def jobs(self) -> dict[str, str]:
        """State of every job by id."""
        told = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T")
        return dict(line.split("|", 1) for line in told.split())

    def idle(self) -> bool:
        return not self.ask("squeue", "--noheader").strip()

    def node(self, job: str) -> str:
        return self.ask("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()

    def requeue(self, job: str) -> None:
        """The application gets no warning, and no time."""
        self.ask("scontrol", "requeue", job)
        self.kill(job)

    def preempt(self, job: str) -> None:
        """A job of the partition ``high`` wants the node."""
        self.ask("sbatch", "--partition=high", f"--nodelist={self.node(job)}", "--output=/dev/null", "--wrap=true")

    def cancel(self, job: str) -> None:
        self.ask("scancel", job)

    def warn(self, job: str) -> None:
        """What SLURM sends before the time limit."""
        self.ask("scancel", "--signal=USR2", job)

    def kill(self, job: str) -> None:
        """What the system does to a process for which there is no memory left."""
        for pid in _processes(job, "submitit.core._submit"):
            os.kill(pid, signal.SIGKILL)

    def lose_node(self, job: str) -> None:
        """The job's node dies with all that runs on it."""
        node, raw = self.node(job), self.ask("squeue", "--noheader", f"--jobs={job}", "--format=%A").strip()
        os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        for pid in (*_watchers(raw), *_processes(job, "")):  # first those that would still tell the controller
            os.kill(pid, signal.SIGKILL)
        self.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")


def _processes(job: str, program: str) -> list[int]:
    """Processes of an array's job whose command line holds ``program``, but for SLURM's own."""
    array, _, task = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={task}".encode()}
    found = []
    for folder, command in _commands():
        if program in command and not command.startswith("srun"):
            with suppress(OSError):  # it has ended
                inherited = set((folder / "environ").read_bytes().split(b"\0"))
                found += [int(folder.name)] if wanted <= inherited else []
    return found


def _watchers(raw: str) -> list[int]:
    """The node's daemons for a job and its steps, by the job's id outside of its array."""
    return [int(folder.name) for folder, command in _commands() if command.startswith(f"slurmstepd: [{raw}.")]


def _commands() -> Iterator[tuple[Path, str]]:
    """Folder and command line of all processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield folder, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _free_ports(count: int) -> int:
    """First of ``count`` neighbouring ports that nobody listens on."""
    for first in range(17200, 60000, 100):
        with_all = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(with_all):
                each.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        else:
            return first
        finally:
            for each in with_all:
                each.close()
    raise RuntimeError("no free ports")
