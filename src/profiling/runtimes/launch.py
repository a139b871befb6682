"""Runs measurements, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.profiling.runtimes.job import Measurement, TimingJob
from src.project import ROOT


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
        command = [sys.executable, "-m", f"src.profiling.runtimes.{module}", str(answer)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        done = subprocess.run(
            command, input=asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise RuntimeError(f"measuring {module} failed with exit code {done.returncode}: {last}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
