"""Profile: size, memory I/O and bit operations of a reference utterance, and the speed of the fp path."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.models.loading import load, load_config, load_graph
from src.point import Point
from src.profiling.latency import Latency, measure
from src.profiling.point import LinearBits, Workload
from src.profiling.point import Point as Cost
from src.profiling.profile import profile_point
from src.profiling.shapes import Dimensions
from src.quant.apply import input_bits
from src.quant.structure import Edit
from src.settings import FULL_PRECISION
from src.stages.base import RESULT, Stage, obtain, read_json
from src.stages.quantize import Quantize
from src.store import Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)


class Profile(Stage):
    """See the module docstring."""

    name = "profile"

    def entry(self, point: Point) -> Entry:
        """One entry per quantized model and reference utterance."""
        return point.profile

    def needs(self, point: Point) -> dict[str, Entry]:
        """The quantized model: its layer table, its structural changes and its size on disk."""
        return {"quantize": point.quantized}

    def build(self, point: Point, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - figures only
        """See :class:`src.profiling.profile.Profile`; what was measured is under ``latency``."""
        settings = point.settings
        log.info("profile: %s", point.label)
        measured = _measured(point)
        graph = load_graph(settings.model)
        quantized = Quantize().result(point)
        cost = Cost(
            dimensions=Dimensions.from_config(load_config(settings.model)),
            graph=graph,
            workload=Workload(settings.profile.seconds, settings.profile.tokens, measured.pop("prompt")),
            bits=linear_bits(quantized["layers"], input_bits(graph, settings)),
            kv_bits=settings.kvbits,
            edits=tuple(Edit(**edit) for edit in quantized["edits"]),
            key_group=settings.key_group,
        )
        return asdict(profile_point(cost, disk_bytes=quantized["disk_bytes"], latency=Latency(**measured)))

    def log(self, point: Point, tracker: Tracker) -> None:
        """Totals, and one table row per component."""
        result = self.result(point)
        tracker.log(self.name, {name: value for name, value in result.items() if isinstance(value, int | float)})
        tracker.summary({name: result[name] for name in ("memory_io_bytes", "bops")})
        moved, bops = result["memory_io_breakdown"], result["bops_breakdown"]
        rows = [[name, moved.get(name, 0), bops.get(name, 0)] for name in sorted({*moved, *bops})]
        tracker.table(self.name, "components", ["component", "memory_io_bytes", "bops"], rows)


def _measured(point: Point) -> dict[str, Any]:
    """Latency of the fp path and the length of the prompt; measured once a model and reference utterance."""

    def build(_: Path) -> dict[str, Any]:
        settings, cost = point.settings, point.settings.profile
        speech = load(settings.model, settings.device, settings.seed)
        latency = measure(speech, seconds=cost.seconds, tokens=cost.tokens, repeats=cost.repeats, seed=settings.seed)
        return {**asdict(latency), "prompt": len(speech.prompt)}

    return read_json(obtain(point.latency, build) / RESULT)


def linear_bits(layers: Sequence[Mapping[str, Any]], abits: Mapping[str, int]) -> dict[str, LinearBits]:
    """Stored bytes and operand widths of every weight by path, from the layer table and the widths of the inputs."""
    bits = {}
    for row in layers:
        out_features, in_features = row["shape"]
        stored = row.get("stored_bytes", out_features * in_features * FULL_PRECISION // 8)
        kept = row.get("exact_inputs", 0), row.get("outliers", 0)  # rows that are not rounded have neither
        bits[row["linear"]] = LinearBits(stored, row["wbits"], abits.get(row["linear"], FULL_PRECISION), *kept)
    return bits
