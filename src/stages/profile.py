"""Profile: size, memory I/O and bit operations of a reference utterance and of those decoded."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.data.transcripts import load_transcripts
from src.errors import UserError
from src.models.families import family_of
from src.models.loading import load
from src.profiling.cost_model import CostModel
from src.profiling.decoded import average
from src.profiling.point_profile import profile_point
from src.quant.structure import read_edits
from src.stages.base import RESULT, Stage, obtain, read_json
from src.stages.decoding import TRANSCRIPTS
from src.stages.point import Point
from src.stages.quantize import Quantize
from src.stages.reference import cost_model
from src.storage.store import Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)

DECODED = "decoded_cost"
_STATIC_GRID_BYTES = 5  # see src.quant.inputs.InputGrid


class Profile(Stage):
    name = "profile"

    def entry(self, point: Point) -> Entry:
        """One entry per quantized model and reference utterance."""
        return point.profile

    def parts(self, point: Point) -> dict[str, Entry]:
        """With the average over the test set, and the length of the prompt."""
        return {"prompt": point.prompt, DECODED: point.decoded_cost, **super().parts(point)}

    def needs(self, point: Point) -> dict[str, Entry]:
        """The quantized model: its layer table, its structural changes and its size on disk."""
        return {"quantize": point.quantized}

    def check(self, point: Point) -> None:
        """Whether there are hypotheses to count the costs of. Raises UserError."""
        model, beams = point.settings.model, point.settings.profile.beams
        if beams > 1 and not family_of(model.family).has_decoder:
            problem = f"{model.name} has no decoder that could follow {beams} hypotheses"
            raise UserError("profile.beams", problem, "Use profile.beams=1")

    def build(self, point: Point, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - figures only
        log.info("profile: %s", point.label)
        cost, disk_bytes = _cost(point), Quantize().result(point)["disk_bytes"]
        return asdict(profile_point(cost, disk_bytes=disk_bytes, device=point.settings.edge_device))

    def run(self, point: Point) -> None:
        """Also averages over the test set, once its transcripts are there."""
        super().run(point)
        if point.transcripts.is_complete():
            obtain(point.decoded_cost, lambda _: _decoded(point))

    def log(self, point: Point, tracker: Tracker) -> None:
        """Totals, and tables with a row per component and per phase."""
        result = self.result(point)
        estimate, energy = result["roofline"] or {}, result["energy"] or {}
        figures = {f"roofline_{name}": estimate.get(name) for name in ("rtf", "tokens_per_second", "token_ms")}
        figures["energy_j_an_hour"] = energy.get("joules_an_hour")
        tracker.log(
            self.name, {k: value for k, value in {**result, **figures}.items() if isinstance(value, int | float)}
        )
        columns = ["memory_io_bytes", "macs", "bops"]
        for table, breakdown in (("component", "breakdown"), ("phase", "phases")):
            parts = [result[f"{figure}_{breakdown}"] for figure in ("memory_io", "macs", "bops")]
            rows = [[name, *(part.get(name, 0) for part in parts)] for name in sorted(set().union(*parts))]
            tracker.table(self.name, f"{table}s", [table, *columns], rows)


def prompt_length(point: Point) -> int:
    """Tokens that every transcript of the model starts with; the model is loaded once to tell."""

    def build(_: Path) -> dict[str, Any]:
        return {"prompt": len(load(point.settings.model, point.settings.device, point.settings.seed).prompt)}

    return int(read_json(obtain(point.prompt, build, point.settings.device) / RESULT)["prompt"])


def _cost(point: Point) -> CostModel:
    """The quantized model and the reference utterance."""
    quantized = Quantize().result(point)
    return cost_model(point, prompt_length(point), quantized["layers"], read_edits(quantized["edits"]))


def _decoded(point: Point) -> dict[str, Any]:
    """Average costs of the transcripts; None where no utterance fits the model's window."""
    transcripts = load_transcripts(point.transcripts.path / TRANSCRIPTS)
    averaged = average(_cost(point), transcripts)
    return {"decoded": None if averaged is None else asdict(averaged)}
