"""Measured time of the model as it runs here: encoder, prompt, and one token at a time, at batch 1.

Weights are dequantized once at load, so this is the speed of the floating-point path (plus simulated activation and
cache quantization, where there is any), the same for every bit-width. The profile stage measures the original model,
without what a method adds to it (rotations on the fly); what that costs and what a quantized runtime would gain is in
:mod:`src.profiling.memory_io` and :mod:`src.profiling.bitops`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from src.profiling.memory_peak import measure_peak
from src.quant.fake import tell_frames
from src.runtime import cpu_model

if TYPE_CHECKING:
    from src.models.speech import Encoded, SpeechModel

T = TypeVar("T")
_WARM_UP = 2  # unmeasured runs: allocator, kernel selection, caches
_LEVEL = 0.1  # standard deviation of the noise; the signal never changes what is computed


@dataclass(frozen=True)
class Latency:
    """Wall-clock times in milliseconds at batch 1, and what they were measured on.

    Attributes:
        encoder_ms: median time of the front-end and encoder; features (Whisper's log-mel) are computed before.
        encoder_p95_ms: 95th percentile over the repeats.
        prefill_ms: median time of the pass over the prompt, cross-attention keys and values included.
        token_ms: median time of one decode step, over all steps of all repeats.
        token_p95_ms: 95th percentile of the same.
        threads: threads torch uses within an operation.
        device: model name of the GPU or CPU.
        peak_memory_mib: peak resident set size of the process.
        peak_device_memory_mib: peak of the CUDA allocator; ``None`` on a CPU.
        peak_since_start: whether ``peak_memory_mib`` covers the process's whole life (see ``memory_peak``).
    """

    encoder_ms: float
    encoder_p95_ms: float
    prefill_ms: float
    token_ms: float
    token_p95_ms: float
    threads: int
    device: str
    peak_memory_mib: float
    peak_device_memory_mib: float | None
    peak_since_start: bool


@torch.inference_mode()
def measure(
    speech: SpeechModel,
    *,
    seconds: float,
    tokens: int,
    repeats: int,
    seed: int,
    kv_layer: Callable[[], CacheLayerMixin] = DynamicLayer,
) -> Latency:
    """Encodes seeded noise of ``seconds`` and decodes ``tokens`` steps after the prompt, ``repeats`` times.

    The most likely token is fed back and an end token does not stop the run, so the work is the same for every model.
    """
    features = speech.features([noise(seconds, speech.sampling_rate, seed)])
    encoder: list[float] = []
    prefill: list[float] = []
    steps: list[float] = []
    with measure_peak(speech.device) as peak:
        for run in range(_WARM_UP + repeats):
            encoded, encoder_ms = _timed(speech.device, partial(speech.encode, features))
            prefill_ms, step_ms = _decode(speech, encoded, tokens, kv_layer)
            if run >= _WARM_UP:
                encoder.append(encoder_ms)
                prefill.append(prefill_ms)
                steps += step_ms
    return Latency(
        encoder_ms=float(np.median(encoder)),
        encoder_p95_ms=float(np.percentile(encoder, 95)),
        prefill_ms=float(np.median(prefill)),
        token_ms=float(np.median(steps)),
        token_p95_ms=float(np.percentile(steps, 95)),
        threads=torch.get_num_threads(),
        device=device_name(speech.device),
        peak_memory_mib=peak.process_mib,
        peak_device_memory_mib=peak.device_mib,
        peak_since_start=peak.since_start,
    )


def noise(seconds: float, sampling_rate: int, seed: int) -> np.ndarray:
    """Reference waveform: Gaussian noise, float32 ``[samples]`` in [-1, 1]."""
    samples = np.random.default_rng(seed).normal(0.0, _LEVEL, round(seconds * sampling_rate))
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def device_name(device: torch.device) -> str:
    """Model name of the GPU, or of the CPU as the system states it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return cpu_model()


def _decode(
    speech: SpeechModel, encoded: Encoded, tokens: int, kv_layer: Callable[[], CacheLayerMixin]
) -> tuple[float, list[float]]:
    """Milliseconds of the prefill, and of each of ``tokens`` greedy steps after it."""
    cache = speech.new_cache(kv_layer)
    tell_frames(cache, encoded.mask)

    def step(ids: Tensor) -> Tensor:
        return speech.decode_step(ids, encoded, cache).argmax(-1, keepdim=True)

    prompt = torch.tensor([speech.prompt], device=speech.device)
    token, prefill_ms = _timed(speech.device, partial(step, prompt))
    times = []
    for _ in range(tokens):
        token, step_ms = _timed(speech.device, partial(step, token))
        times.append(step_ms)
    return prefill_ms, times


def _timed(device: torch.device, call: Callable[[], T]) -> tuple[T, float]:
    """The call's result and its wall-clock milliseconds, work queued on a GPU included."""
    _synchronize(device)
    start = time.perf_counter()
    result = call()
    _synchronize(device)
    return result, (time.perf_counter() - start) * 1000.0


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
