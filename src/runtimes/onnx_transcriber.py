"""Exported graphs in onnxruntime, through the loop that is exported with them. Nothing of torch is imported."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime

from src.data.transcripts import LongForm
from src.export.onnx_generate import Recogniser
from src.runtimes.job import RuntimeJob, Transcriber


class OnnxTranscriber(Transcriber):
    version = onnxruntime.__version__

    def __init__(self, job: RuntimeJob) -> None:
        self._recogniser = _Clocked(job.folder, job.threads)
        self.sampling_rate = self._recogniser.told["sampling_rate"]

    def transcribe(self, waveform: np.ndarray) -> tuple[str, int, bool, LongForm | None]:
        self._recogniser.first_token_at = None
        written = self._recogniser.transcribe(waveform)
        self.first_token_at = self._recogniser.first_token_at or time.perf_counter()
        return written


class _Clocked(Recogniser):
    """Notes when the first token was there."""

    first_token_at: float | None = None

    def step(self, tokens: np.ndarray, state: dict[str, onnxruntime.OrtValue]) -> np.ndarray:
        logits = super().step(tokens, state)
        if self.first_token_at is None:
            self.first_token_at = time.perf_counter()
        return logits
