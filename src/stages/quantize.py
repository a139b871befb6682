"""Quantize: round the linears block by block and write the low-bit model."""

from __future__ import annotations

import logging
import statistics
from functools import cache, partial
from pathlib import Path
from typing import Any

from src.calib.capture import CLIPS, WAVEFORMS, Calibration, load_calibration
from src.calib.statistics import FILE, load_statistics, measure, save_statistics
from src.machine.provenance import has_read, stamped
from src.methods.apply import Quantizer
from src.methods.asked import check_inputs, check_structure, weight_plan
from src.methods.block_journal import BlockJournal
from src.methods.propagation import check_propagation
from src.models.loading import check_processors, load, load_empty
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.ends import chosen_ends
from src.quant.link_statistics import LinkStatistics
from src.quant.structure import stored_edits
from src.stages.base import Stage
from src.stages.point import Point
from src.stages.reference import reference_cost
from src.storage.digest import sha256_file
from src.storage.journal import digest
from src.storage.store import Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)

CHECKPOINT = "model.safetensors"
COLUMNS = (
    "linear",
    "component",
    "wbits",
    "abits",
    "exact_inputs",
    "outliers",
    "bits_per_weight",
    "weight_error",
    "output_error",
    "weight_sqnr_db",
    "output_sqnr_db",
    "skipped",
)


class Quantize(Stage):
    name = "quantize"

    def entry(self, point: Point) -> Entry:
        """One entry per model, method and bit-config."""
        return point.quantized

    def needs(self, point: Point) -> dict[str, Entry]:
        """Only methods that use calibration data, and static ranges of activations, read it."""
        return {"calibrate": point.calibration} if point.uses_calibration else {}

    def check(self, point: Point) -> None:
        """The model; scope, group size and budgets against its layers, options against the method. Raises UserError."""
        check_inputs(point.method, point.settings)
        check_propagation(point.method, point.settings)
        check_processors(point.settings.model)
        graph, module = load_empty(point.settings.model)
        check_structure(point.method, graph, point.settings)
        plan = {path: spec for path, spec in weight_plan(graph, point.settings).items() if spec is not None}
        ends = {end.path: end.spec for end in chosen_ends(graph, module, point.settings)}
        point.method.check(module, plan | ends)

    def build(self, point: Point, folder: Path) -> dict[str, Any]:
        """Packed codes, scales and zeros, every other parameter at 16 bits, one table row per weight, and the edits."""
        settings = point.settings
        log.info("quantize: %s", point.label)
        speech = load(settings.model, settings.device, settings.seed)
        calibration = None
        if point.uses_calibration:
            calib = settings.calib
            calibration = load_calibration(point.calibration.path, speech, calib.batch_size, calib.silence)
        at_full_precision = cache(partial(_fp_statistics, point, speech, calibration, folder))
        # Without calibration, blocks take no time.
        journal = BlockJournal(folder, _basis(point)) if calibration is not None else None
        if journal and journal.finished is not None:
            log.info("quantize: going on after %d of %d blocks", journal.finished, len(speech.graph.blocks))
        priced = reference_cost(point, len(speech.prompt)) if point.method.needs.reference else None
        quantizer = Quantizer(speech, point.method, settings, calibration, at_full_precision, journal, priced)
        quantizer.run()
        path = folder / CHECKPOINT
        leftovers = leftover_tensors(speech.module, quantizer.weights)
        save_weights(path, quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
        edits = stored_edits(quantizer.edits)
        foretold = {} if quantizer.expected_nats is None else {"expected_nats": quantizer.expected_nats}
        return {"layers": quantizer.rows, "edits": edits, "disk_bytes": path.stat().st_size, **foretold}

    def log(self, point: Point, tracker: Tracker) -> None:
        """Size, mean errors, the layer table, and the model with its calibration as input."""
        result, entry = self.result(point), self.entry(point)
        took = self.times(point).get("processor_seconds")
        tracker.log(self.name, summarize(result) | ({} if took is None else {"processor_seconds": took}))
        rows = [[*(row.get(column) for column in COLUMNS), "; ".join(row["notes"])] for row in result["layers"]]
        tracker.table(self.name, "layers", [*COLUMNS, "notes"], rows)
        uses = [f"calibration-{needed.fingerprint}" for needed in self.needs(point).values()]
        files = {CHECKPOINT: entry.path / CHECKPOINT}
        tracker.artifact(self.name, f"model-{entry.fingerprint}", "model", files, dict(entry.key), uses)


def _basis(point: Point) -> dict[str, Any]:
    """What resumed blocks depend on, beside the entry's key: what was calibrated on, to the byte, and how it is fed."""
    clips = [sha256_file(point.calibration.path / name) for name in (CLIPS, WAVEFORMS)]
    settings = point.settings
    about = {"batch_size": settings.calib.batch_size, "seed": settings.seed, "device": settings.device}
    return {"calibration": digest(clips), **about}


def _fp_statistics(
    point: Point, speech: SpeechModel, calibration: Calibration | None, reader: Path, gram: bool
) -> dict[str, LinkStatistics]:
    """Statistics of the link inputs of ``speech``, the original model, measured once for all methods and widths.

    Without Gram matrices, these are the calibrate stage's own. ``reader`` is the folder of what rests on them.
    """

    def build(folder: Path) -> None:
        if calibration is None:
            raise ValueError("statistics need calibration clips")
        save_statistics(measure(speech, calibration, gram=True), folder / FILE)

    folder = point.calibration.path
    if gram:
        folder = point.statistics("gram").obtain(stamped(build, point.settings.device))
        has_read(reader, "statistics", folder)
    return load_statistics(folder / FILE, speech.device)


def summarize(result: dict[str, Any]) -> dict[str, float | int]:
    """The layer table in three figures, and what the method foretold."""
    rounded = [row for row in result["layers"] if row.get("weight_error") is not None]
    measured = {
        f"mean_{kind}_error": [row[f"{kind}_error"] for row in rounded if row[f"{kind}_error"] is not None]
        for kind in ("weight", "output")
    }
    errors = {name: statistics.fmean(values) for name, values in measured.items() if values}
    errors |= {"expected_nats": result["expected_nats"]} if "expected_nats" in result else {}
    return {"disk_bytes": result["disk_bytes"], "quantized_linears": len(rounded), **errors}
