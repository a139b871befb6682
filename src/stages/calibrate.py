"""Calibrate: feed clips to the fp model and measure what its linears are fed."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from src.calib.capture import CLIPS, capture
from src.calib.statistics import FILE, measure, save_statistics
from src.data.sources import open_rows
from src.errors import UserError, within
from src.models.families import family_of
from src.models.loading import check_processors, load
from src.quant.figures import Distribution, input_distribution
from src.stages.base import Stage
from src.stages.point import Point
from src.storage.store import PROGRESS_SUFFIX, Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)

_FIGURES = tuple(field.name for field in fields(Distribution))


class Calibrate(Stage):
    name = "calibrate"

    def entry(self, point: Point) -> Entry:
        """One calibration serves every method and bit-width of a model."""
        return point.calibration

    def parts(self, point: Point) -> dict[str, Entry]:
        return {"calibration_corpus": point.calibration_set.entry(point.store), **super().parts(point)}

    def check(self, point: Point) -> None:
        """The calibration set can be read, and its text encoded where that is asked for. Raises UserError."""
        model = point.settings.model
        if point.settings.calib.decoder_inputs == "reference":
            problem = None
            if not family_of(model.family).has_decoder:
                problem = f"{model.name} has no decoder that could read a reference"
            elif model.random_weights:
                problem = "a model with random weights has no tokenizer that could encode a reference"
            if problem:
                raise UserError("calib.decoder_inputs", problem, "Use calib.decoder_inputs=generate")
        check_processors(model)
        with within("calib"):
            open_rows(point.settings.calib.dataset)

    def check_data(self, point: Point) -> None:
        """The calibration clips can be heard, and where references are fed they have their own. Raises UserError."""
        clips = point.calibration_corpus.clips
        if point.settings.calib.decoder_inputs == "reference" and any(clip.session for clip in clips):
            problem = f"clips of {point.settings.calib.dataset.name} share the reference of their session"
            raise UserError("calib.decoder_inputs", problem, "Use calib.decoder_inputs=generate")

    def build(self, point: Point, folder: Path) -> dict[str, Any]:
        """Clips, features, teacher tokens, and per-channel statistics of every link's input."""
        settings = point.settings
        corpus = point.calibration_corpus
        clips, name = len(corpus.clips), settings.calib.dataset.name
        log.info("calibrate: %d clips of %s on %s", clips, name, settings.model.name)
        speech = load(settings.model, settings.device, settings.seed)
        calibration = capture(
            speech,
            corpus.utterances(),
            folder / f"batches{PROGRESS_SUFFIX}",
            batch_size=settings.calib.batch_size,
            suppress=settings.evaluate.suppress_tokens,
            references=settings.calib.decoder_inputs == "reference",
        )
        calibration.save(folder)
        statistics = measure(speech, calibration, gram=False)
        save_statistics(statistics, folder / FILE)
        return {
            "clips": len(calibration.ids),
            "truncated": sum(clip.samples > speech.window for clip in corpus.clips),
            "seconds": round(sum(calibration.seconds), 3),
            "tokens": sum(map(len, calibration.tokens)),
            "rows": {name: item.count for name, item in statistics.items()},
            "abs_max": {name: float(item.abs_max.max()) for name, item in statistics.items()},
            "distributions": {
                name: asdict(read) for name, item in statistics.items() if (read := input_distribution(item))
            },
            "data": corpus.report,
        }

    def log(self, point: Point, tracker: Tracker) -> None:
        """Totals, one table row per link, and the calibration as an artifact."""
        result = self.result(point)
        tracker.log(self.name, {key: result[key] for key in ("clips", "truncated", "seconds", "tokens")})
        shapes = result.get("distributions", {})
        rows = [
            [name, count, result["abs_max"][name], *(shapes.get(name, {}).get(figure) for figure in _FIGURES)]
            for name, count in result["rows"].items()
        ]
        tracker.table(self.name, "links", ["link", "rows", "abs_max", *_FIGURES], rows)
        entry = self.entry(point)
        files = {name: entry.path / name for name in (CLIPS, FILE)}
        figures = {name: value for name, value in result.items() if name != "data"}  # ids of a corpus are too many
        tracker.artifact(self.name, f"calibration-{entry.fingerprint}", "calibration", files, figures)
