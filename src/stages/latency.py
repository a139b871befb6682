"""Latency: how fast the full-precision path runs on this machine, or why that cannot be told now."""

from __future__ import annotations

import gc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from src.machine.load import alone, require_quiet
from src.machine.process import release_memory
from src.models.loading import load
from src.profiling.latency import measure
from src.stages.base import Stage
from src.stages.point import Point
from src.storage.store import Entry
from src.tracking import Tracker

LOGGED = ("encoder_ms", "token_ms", "peak_memory_mib", "device", "threads", "load")


class Latency(Stage):
    """See the module docstring. It runs with ``profile``; ``stages`` does not name it.

    A figure is of one processor, one number of threads and a machine that does nothing else: all of that is in the
    entry's key, and beside other work nothing is measured, so that it is made up for when the machine is quiet.
    """

    name = "latency"
    bound = True

    def wanted(self, point: Point) -> bool:
        return "profile" in point.settings.stages

    def entry(self, point: Point) -> Entry:
        """One entry per model, reference utterance and machine."""
        return point.latency

    def build(self, point: Point, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - figures only
        """See :class:`src.profiling.latency.Latency`; ``load`` is what others computed meanwhile, in processors."""
        settings, cost = point.settings, point.settings.profile
        threads = torch.get_num_threads()
        require_quiet(threads, cost.max_load)
        gc.collect()
        release_memory()
        speech = load(settings.model, settings.device, settings.seed)
        with alone(threads, cost.max_load) as beside:
            latency = measure(
                speech, seconds=cost.seconds, tokens=cost.tokens, repeats=cost.repeats, seed=settings.seed
            )
        return {**asdict(latency), "load": beside.others}

    def log(self, point: Point, tracker: Tracker) -> None:
        """Medians, peak memory, and whose they are."""
        result = self.result(point)
        tracker.log("profile", {name: result[name] for name in LOGGED if result[name] is not None})
