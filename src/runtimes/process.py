"""Runs an exported model in a process of its own, which is told waveforms and answers with texts, times and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any, Final

import numpy as np

from src.project import ROOT
from src.runtimes.job import Heard, Loaded, RuntimeJob
from src.runtimes.worker import LENGTH

_LAST: Final = 5  # lines of what a process said before it failed


def command(module: str, *arguments: str) -> list[str]:
    """``python -m module arguments``, to be run in the project's root."""
    return [sys.executable, "-m", module, *arguments]


def environment(threads: int) -> Mapping[str, str]:
    """This process's own, but for the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def last_words(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-_LAST:])


class RuntimeProcess:
    """A process that has loaded a model, from ``with`` to its end; ``worker``: the module whose runtimes it may run.

    Raises:
        RuntimeError: the process failed, now or while it hears; its last words are told.
    """

    loaded: Loaded

    def __init__(self, job: RuntimeJob, worker: str = "src.runtimes.worker") -> None:
        self._job, self._worker = job, worker

    def __enter__(self) -> RuntimeProcess:
        self._said: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            command(self._worker),
            cwd=ROOT,
            env=environment(self._job.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        try:
            self.loaded = Loaded(**self._ask(json.dumps(asdict(self._job)).encode() + b"\n"))
        except BaseException:
            self._end(kill=True)
            raise
        return self

    def hear(self, waveform: np.ndarray) -> Heard:
        """Transcribes float32 ``[samples]`` at 16 kHz, of any length."""
        samples = np.ascontiguousarray(waveform, np.float32)
        return Heard(**self._ask(LENGTH.pack(len(samples)), samples.tobytes()))

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._end(kill=kind is not None)

    def _ask(self, *parts: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            for part in parts:
                self._process.stdin.write(part)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            code = self._process.wait()
            self._said.seek(0)
            told = last_words(self._said.read())
            raise RuntimeError(f"{self._job.runtime} in {self._job.folder} ended with exit code {code}: {told}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _end(self, *, kill: bool) -> None:
        if kill:
            self._process.kill()
        self._process.communicate()  # closes its input, at the end of which it ends
        self._said.close()
