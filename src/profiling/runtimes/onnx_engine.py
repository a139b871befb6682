"""Exported graphs in onnxruntime, through the loop that is exported with them. Nothing of torch is imported."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime

from src.export.onnx_generate import Recogniser
from src.machine.processor import cpu_model
from src.profiling.reference import Engine, noise
from src.profiling.runtimes.job import TimingJob

VERSION = onnxruntime.__version__


class OnnxEngine(Engine):
    def __init__(self, recogniser: Recogniser, job: TimingJob) -> None:
        self._recogniser = recogniser
        self._features = recogniser.features([noise(job.seconds, recogniser.told["sampling_rate"], job.seed)])
        self._prompt = np.array([recogniser.told["prompt"]], np.int64)

    def encode(self) -> None:
        self._encoded = self._recogniser.encode_features(self._features)

    def prefill(self) -> None:
        self._state = self._recogniser.start(self._encoded)
        self._token = self._next(self._prompt)

    def step(self) -> None:
        self._token = self._next(self._token)

    def _next(self, tokens: np.ndarray) -> np.ndarray:
        best: np.ndarray = self._recogniser.step(tokens, self._state).argmax(-1, keepdims=True)
        return best


def open_engine(job: TimingJob) -> tuple[OnnxEngine, float, str]:
    """The engine, milliseconds of loading, and the device's name."""
    start = time.perf_counter()
    recogniser = Recogniser(job.source, job.threads)
    load_ms = (time.perf_counter() - start) * 1000.0
    return OnnxEngine(recogniser, job), load_ms, cpu_model()
