"""The project's own commands, run as a user runs them: in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from src.project import ROOT


def environment(**changes: str) -> dict[str, str]:
    """One thread, so that several jobs do not fight over two cores; nothing a tracker in this process left behind."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**inherited, "OMP_NUM_THREADS": "1", **changes}


def run(module: str, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments``, with ``changes`` of the environment; what it printed and returned."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def start(module: str, *arguments: object, **streams: int) -> subprocess.Popen[str]:
    """The same, still running; ``streams`` are stdout and stderr."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **streams)
