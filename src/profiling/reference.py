"""The reference workload that every measurement runs, without torch: its waveform, and the loop over its parts.

Batch 1. The encoder runs once; the decoder reads the prompt in one pass, which yields the first token, and then one
token at a time. The number of tokens is forced, so that the work is the same whatever a model or its precision writes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from src.machine.progress import progress

WARM_UP = 2  # unmeasured runs: allocator, kernel selection, caches
_LEVEL = 0.1  # standard deviation of the noise; the signal never changes what is computed


def noise(seconds: float, sampling_rate: int, seed: int) -> np.ndarray:
    """Reference waveform: Gaussian noise, float32 ``[samples]`` in [-1, 1]."""
    samples = np.random.default_rng(seed).normal(0.0, _LEVEL, round(seconds * sampling_rate))
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


class Engine(ABC):
    """A loaded model whose features of the reference utterance are ready."""

    @abstractmethod
    def encode(self) -> None:
        """Front-end and encoder."""

    @abstractmethod
    def prefill(self) -> None:
        """Forgets all tokens, and reads the prompt."""

    @abstractmethod
    def step(self) -> None:
        """Reads the token that came out last."""

    def timed(self, call: Callable[[], None]) -> float:
        """Milliseconds of ``call``."""
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1000.0


@dataclass
class Times:
    """Milliseconds of every run after the warm-up.

    Attributes:
        encoder: one a run.
        prefill: one a run: the first token.
        steps: one a token.
        runs: encoder, prefill and all steps together, one a run.
    """

    encoder: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)


def run_reference(engine: Engine, *, tokens: int, repeats: int) -> Times:
    """Times of ``repeats`` runs of the utterance with ``tokens`` decode steps each, after :data:`WARM_UP` more."""
    times = Times()
    for run in progress(range(WARM_UP + repeats), "reference utterance"):
        encoder, prefill = engine.timed(engine.encode), engine.timed(engine.prefill)
        steps = [engine.timed(engine.step) for _ in range(tokens)]
        if run >= WARM_UP:
            times.encoder.append(encoder)
            times.prefill.append(prefill)
            times.steps += steps
            times.runs.append(encoder + prefill + sum(steps))
    return times
