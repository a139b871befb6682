"""Profile: size, memory I/O and bit operations of a reference utterance and of those decoded; speed of the fp path."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.evaluation.transcribe import load_transcripts
from src.models.loading import load, load_config, load_graph
from src.point import Point
from src.profiling.decoded import average
from src.profiling.latency import Latency, measure
from src.profiling.point import LinearBits, Workload
from src.profiling.point import Point as Cost
from src.profiling.profile import profile_point
from src.profiling.shapes import Dimensions
from src.quant.apply import input_bits
from src.quant.structure import Edit
from src.settings import FULL_PRECISION
from src.stages.base import RESULT, Stage, obtain, read_json
from src.stages.decoding import TRANSCRIPTS
from src.stages.quantize import Quantize
from src.store import Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)

_STATIC_GRID_BYTES = 5  # see src.quant.inputs.InputGrid


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
        log.info("profile: %s", point.label)
        measured = _measured(point)
        cost, disk_bytes = _cost(point, measured.pop("prompt")), Quantize().result(point)["disk_bytes"]
        device = point.settings.edge_device
        return asdict(profile_point(cost, disk_bytes=disk_bytes, latency=Latency(**measured), device=device))

    def run(self, point: Point) -> None:
        """Also averages over the test set, once its transcripts are there."""
        super().run(point)
        if point.transcripts.is_complete():
            obtain(point.decoded_cost, lambda _: _decoded(point))

    def result(self, point: Point) -> dict[str, Any]:
        """The stored figures; under ``decoded`` those of :class:`~src.profiling.decoded.DecodedCost`, where stored."""
        entry = point.decoded_cost
        decoded = read_json(entry.path / RESULT)["decoded"] if entry.is_complete() else None
        return {**super().result(point), "decoded": decoded}

    def log(self, point: Point, tracker: Tracker) -> None:
        """Totals, and tables with a row per component and per phase."""
        result = self.result(point)
        estimate = result["roofline"] or {}
        figures = {f"roofline_{name}": estimate.get(name) for name in ("rtf", "tokens_per_second", "token_ms")}
        tracker.log(
            self.name, {k: value for k, value in {**result, **figures}.items() if isinstance(value, int | float)}
        )
        tracker.summary({name: result[name] for name in ("memory_io_bytes", "bops")})
        columns = ["memory_io_bytes", "macs", "bops"]
        for table, breakdown in (("component", "breakdown"), ("phase", "phases")):
            parts = [result[f"{figure}_{breakdown}"] for figure in ("memory_io", "macs", "bops")]
            rows = [[name, *(part.get(name, 0) for part in parts)] for name in sorted(set().union(*parts))]
            tracker.table(self.name, f"{table}s", [table, *columns], rows)


def _cost(point: Point, prompt: int) -> Cost:
    """The quantized model and the reference utterance, after a prompt of ``prompt`` tokens."""
    settings, quantized = point.settings, Quantize().result(point)
    graph, chosen = load_graph(settings.model), settings.profile
    return Cost(
        dimensions=Dimensions.from_config(load_config(settings.model)),
        graph=graph,
        workload=Workload(chosen.seconds, chosen.tokens, prompt, chosen.batch, chosen.beams),
        bits=linear_bits(quantized["layers"], input_bits(graph, settings), static=settings.static_inputs),
        kv_bits=settings.kvbits,
        edits=tuple(Edit(**edit) for edit in quantized["edits"]),
        key_group=settings.key_group,
    )


def _decoded(point: Point) -> dict[str, Any]:
    """Average costs of the transcripts; None where no utterance fits the model's window."""
    transcripts = load_transcripts(point.transcripts.path / TRANSCRIPTS)
    averaged = average(_cost(point, _measured(point)["prompt"]), transcripts)
    return {"decoded": None if averaged is None else asdict(averaged)}


def _measured(point: Point) -> dict[str, Any]:
    """Latency of the fp path and the length of the prompt; measured once a model and reference utterance."""

    def build(_: Path) -> dict[str, Any]:
        settings, cost = point.settings, point.settings.profile
        speech = load(settings.model, settings.device, settings.seed)
        latency = measure(speech, seconds=cost.seconds, tokens=cost.tokens, repeats=cost.repeats, seed=settings.seed)
        return {**asdict(latency), "prompt": len(speech.prompt)}

    return read_json(obtain(point.latency, build) / RESULT)


def linear_bits(
    layers: Sequence[Mapping[str, Any]], abits: Mapping[str, int], *, static: bool = False
) -> dict[str, LinearBits]:
    """Stored bytes and operand widths of every weight by path, from the layer table and the widths of the inputs.

    ``static``: quantized inputs have one grid each, which is stored: a float32 scale and a zero point of a byte.
    """
    bits = {}
    for row in layers:
        out_features, in_features = row["shape"]
        stored = row.get("stored_bytes", out_features * in_features * FULL_PRECISION // 8)
        kept = row.get("exact_inputs", 0), row.get("outliers", 0)  # rows that are not rounded have neither
        width = abits.get(row["linear"], FULL_PRECISION)
        grid = _STATIC_GRID_BYTES if static and width != FULL_PRECISION else 0
        bits[row["linear"]] = LinearBits(stored, row["wbits"], width, *kept, grid)
    return bits
