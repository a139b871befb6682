"""Measured time of the model as it runs here: encoder, prompt, and one token at a time, at batch 1.

Weights are dequantized once at load, so this is the speed of the floating-point path, the same for every bit-width. The
profile stage measures the original model, without what a method adds to it (rotations on the fly); what that costs and
what a quantized runtime would gain is in :mod:`src.profiling.memory_io` and :mod:`src.profiling.bitops`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from src.machine.memory_peak import measure_peak
from src.machine.processor import cpu_model
from src.profiling.reference import Engine, noise, run_reference

if TYPE_CHECKING:
    from src.models.speech import Encoded, SpeechModel


@dataclass(frozen=True)
class MeasuredLatency:
    """Wall-clock times in milliseconds at batch 1, and what they were measured on.

    Attributes:
        encoder_ms: median time of the front-end and encoder; features (Whisper's log-mel) are computed before.
        encoder_p95_ms: 95th percentile over the repeats.
        prefill_ms: median time of the pass over the prompt, cross-attention keys and values included; without a decoder
            of the head over all frames.
        token_ms: median time of one decode step, over all steps of all repeats; ``None`` without a decoder.
        token_p95_ms: 95th percentile of the same.
        threads: threads torch uses within an operation.
        device: model name of the GPU or CPU.
        peak_memory_mib: peak resident set size of the process, of which what earlier stages left is given back first.
        peak_device_memory_mib: peak of the CUDA allocator; ``None`` on a CPU.
        peak_since_start: whether ``peak_memory_mib`` covers the process's whole life (see ``memory_peak``).
    """

    encoder_ms: float
    encoder_p95_ms: float
    prefill_ms: float
    token_ms: float | None
    token_p95_ms: float | None
    threads: int
    device: str
    peak_memory_mib: float
    peak_device_memory_mib: float | None
    peak_since_start: bool


@torch.inference_mode()
def measure(speech: SpeechModel, *, seconds: float, tokens: int, repeats: int, seed: int) -> MeasuredLatency:
    """Encodes seeded noise of ``seconds`` and decodes ``tokens`` steps after the prompt, ``repeats`` times.

    The most likely token is fed back and an end token does not stop the run, so the work is the same for every model.
    """
    with measure_peak(speech.device) as peak:
        engine = TorchEngine(speech, seconds=seconds, seed=seed)
        times = run_reference(engine, tokens=tokens if speech.blank is None else 0, repeats=repeats)
    return MeasuredLatency(
        encoder_ms=float(np.median(times.encoder)),
        encoder_p95_ms=float(np.percentile(times.encoder, 95)),
        prefill_ms=float(np.median(times.prefill)),
        token_ms=float(np.median(times.steps)) if times.steps else None,
        token_p95_ms=float(np.percentile(times.steps, 95)) if times.steps else None,
        threads=torch.get_num_threads(),
        device=device_name(speech.device),
        peak_memory_mib=peak.process_mib,
        peak_device_memory_mib=peak.device_mib,
        peak_since_start=peak.since_start,
    )


class TorchEngine(Engine):
    """``speech`` as it is, on its own device; on CUDA, times are those between two events on the stream."""

    def __init__(self, speech: SpeechModel, *, seconds: float, seed: int) -> None:
        self._speech = speech
        self._features = speech.features([noise(seconds, speech.sampling_rate, seed)])
        self._prompt = torch.tensor([speech.prompt], device=speech.device)
        self._encoded: Encoded
        self._token: Tensor

    def encode(self) -> None:
        self._encoded = self._speech.encode(self._features)

    def prefill(self) -> None:
        if self._speech.blank is not None:
            self._speech.frame_logits(self._encoded).argmax(-1)
            return
        self._cache = self._speech.new_cache()
        self._token = self._next(self._prompt)

    def step(self) -> None:
        self._token = self._next(self._token)

    def timed(self, call: Callable[[], None]) -> float:
        if self._speech.device.type != "cuda":
            return super().timed(call)
        with torch.cuda.device(self._speech.device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            call()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end))

    def _next(self, ids: Tensor) -> Tensor:
        return self._speech.decode_step(ids, self._encoded, self._cache).argmax(-1, keepdim=True)


def device_name(device: torch.device) -> str:
    """Model name of the GPU, or of the CPU as the system states it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return cpu_model()
