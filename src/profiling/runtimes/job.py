"""One measurement: what a process of its own is asked, and what it answers. Plain data, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from src.profiling.reference import Times


@dataclass(frozen=True)
class TimingJob:
    """What to measure.

    Attributes:
        engine: ``torch``, ``onnx`` or ``whisper_cpp``.
        source: folder of the exported files; for torch, unused.
        model: for torch, the fields of :class:`~src.settings.ModelSettings`.
        seconds: of the reference utterance.
        prompt: tokens before the first.
        tokens: decode steps.
        repeats: measured runs.
        seed: of the waveform, and of random weights.
        threads: that the runtime computes with.
        device: for torch; other runtimes compute on the CPU.
    """

    engine: str
    source: str
    model: dict[str, Any]
    seconds: float
    prompt: int
    tokens: int
    repeats: int
    seed: int
    threads: int
    device: str


@dataclass(frozen=True)
class Measurement:
    """What one runtime took on the reference utterance.

    Attributes:
        load_ms: from files to a model that can run, libraries imported before; None where weights are drawn.
        encoder_ms: median over the runs; features are computed before.
        encoder_p95_ms: 95th percentile of the same.
        first_token_ms: median of the pass over the prompt.
        first_token_p95_ms: 95th percentile of the same.
        token_ms: median over all decode steps.
        token_p95_ms: 95th percentile of the same.
        rtf: real-time factor: median of encoder, prompt and steps together, over the utterance's length.
        peak_rss_mib: peak resident set size of the process, which does nothing else.
        threads: that the runtime computed with.
        device: name of the processor or GPU.
        version: of the runtime.
        load: processors that others kept busy meanwhile; None where that is not known.
    """

    load_ms: float | None
    encoder_ms: float
    encoder_p95_ms: float
    first_token_ms: float
    first_token_p95_ms: float
    token_ms: float
    token_p95_ms: float
    rtf: float
    peak_rss_mib: float
    threads: int
    device: str
    version: str
    load: float | None = None


def summarize(times: Times, seconds: float) -> dict[str, float]:
    """The figures of :class:`Measurement` that come from ``times``."""
    parts = {"encoder": times.encoder, "first_token": times.prefill, "token": times.steps}
    medians = {f"{name}_ms": float(np.median(values)) for name, values in parts.items()}
    p95s = {f"{name}_p95_ms": float(np.percentile(values, 95)) for name, values in parts.items()}
    return {**medians, **p95s, "rtf": float(np.median(times.runs)) / 1000.0 / seconds}
