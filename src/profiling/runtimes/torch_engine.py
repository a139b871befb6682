"""The original model in torch, at full precision."""

from __future__ import annotations

import time

import torch

from src.models.loading import load
from src.profiling.latency import TorchEngine, device_name
from src.profiling.runtimes.job import TimingJob
from src.settings import ModelSettings

VERSION = torch.__version__


def open_engine(job: TimingJob) -> tuple[TorchEngine, float | None, str]:
    """The engine, milliseconds of loading (None where weights are drawn), and the device's name."""
    torch.set_num_threads(job.threads)
    model = ModelSettings(**job.model)
    start = time.perf_counter()
    speech = load(model, job.device, job.seed)
    load_ms = (time.perf_counter() - start) * 1000.0
    torch.set_grad_enabled(False)
    engine = TorchEngine(speech, seconds=job.seconds, seed=job.seed)
    return engine, None if model.random_weights else load_ms, device_name(speech.device)
