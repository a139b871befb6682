"""whisper.cpp through pywhispercpp. Nothing of torch is imported.

The binding passes one token at a time, so the first token takes as many passes as the prompt has tokens. It gives no
logits, so one token is fed again and again, which costs what any other does.
"""

from __future__ import annotations

import time
from importlib.metadata import version

import _pywhispercpp as whisper_cpp

from src.machine.processor import cpu_model
from src.profiling.reference import Engine, noise
from src.profiling.runtimes.job import TimingJob
from src.runtimes.whisper_cpp_transcriber import open_context

VERSION = version("pywhispercpp")
_SAMPLING_RATE = 16_000


class WhisperCppEngine(Engine):
    def __init__(self, context: whisper_cpp.whisper_context, job: TimingJob) -> None:
        self._context, self._threads, self._prompt = context, job.threads, job.prompt
        waveform = noise(job.seconds, _SAMPLING_RATE, job.seed)
        _succeeded(whisper_cpp.whisper_pcm_to_mel(context, waveform, len(waveform), job.threads))
        self._past = 0

    def encode(self) -> None:
        _succeeded(whisper_cpp.whisper_encode(self._context, 0, self._threads))

    def prefill(self) -> None:
        self._past = 0
        for _ in range(self._prompt):
            self.step()

    def step(self) -> None:
        _succeeded(whisper_cpp.whisper_decode(self._context, 0, 1, self._past, self._threads))
        self._past += 1


def open_engine(job: TimingJob) -> tuple[WhisperCppEngine, float, str]:
    """The engine, milliseconds of loading, and the device's name."""
    start = time.perf_counter()
    context = open_context(job.source)
    load_ms = (time.perf_counter() - start) * 1000.0
    return WhisperCppEngine(context, job), load_ms, cpu_model()


def _succeeded(code: int) -> None:
    if code:
        raise RuntimeError(f"whisper.cpp returned {code}")
