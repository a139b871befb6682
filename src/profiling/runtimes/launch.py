"""Runs measurements, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.profiling.runtimes.job import Measurement, TimingJob
from src.project import ROOT
from src.runtimes.process import command, environment, last_words


def measure(job: TimingJob) -> Measurement:
    """The measurement of ``job``.

    Raises:
        RuntimeError: the process failed; its last words are told.
    """
    return Measurement(**_answer("worker", json.dumps(asdict(job)), job.threads))


def measure_bandwidth(threads: int) -> dict[str, Any]:
    """What the memory gives: see :mod:`src.profiling.runtimes.bandwidth`. Raises RuntimeError as :func:`measure`."""
    return _answer("bandwidth", str(threads), threads)


def _answer(module: str, asked: str, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            command(f"src.profiling.runtimes.{module}", str(answer)),
            input=asked,
            cwd=ROOT,
            env=environment(threads),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            told = f"measuring {module} failed with exit code {done.returncode}"
            raise RuntimeError(f"{told}: {last_words(done.stderr)}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
