"""The project's own commands, run as a user runs them: in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from src.project import ROOT
from tests.composed import sandboxed


def environment(**changes: str) -> dict[str, str]:
    """One thread, so that several jobs do not fight over two cores; nothing a tracker in this process left behind."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**inherited, "OMP_NUM_THREADS": "1", **changes}


def command(module: str, *arguments: object) -> list[str]:
    """``python -m module arguments``, points on the sandbox unless they choose an experiment of their own."""
    given = sandboxed(arguments) if module == "src.main" else [str(each) for each in arguments]
    return [sys.executable, "-m", module, *given]


def run(module: str, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments``, with ``changes`` of the environment; what it printed and returned."""
    return subprocess.run(
        command(module, *arguments),
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def start(module: str, *arguments: object, **streams: int) -> subprocess.Popen[str]:
    """The same, still running; ``streams`` are stdout and stderr."""
    return subprocess.Popen(command(module, *arguments), cwd=ROOT, env=environment(), text=True, **streams)
