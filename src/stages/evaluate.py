"""Evaluate: transcribe the test set with the quantized model, score it, and compare it with full precision."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from src.data.audio import SAMPLING_RATE
from src.data.corpora import require_dataset, require_disjoint
from src.evaluation.bootstrap import interval, paired
from src.evaluation.transcribe import Transcript, load_transcripts, save_transcripts, transcribe_corpus
from src.evaluation.wer import WerResult, score
from src.models.loading import load
from src.point import Point
from src.quant.apply import input_bits, restore
from src.stages.base import TIMES, Stage, obtain, read_json
from src.stages.quantize import CHECKPOINT, Quantize
from src.store import PROGRESS_SUFFIX, Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)

TRANSCRIPTS = "transcripts.jsonl"
COUNTS = ("wer", "cer", "substitutions", "deletions", "insertions", "words")
WORST = 16  # transcripts shown with their audio


class Evaluate(Stage):
    """See the module docstring."""

    name = "evaluate"

    def entry(self, point: Point) -> Entry:
        """Scores; the transcripts they rest on are an entry of their own."""
        return point.evaluation

    def needs(self, point: Point) -> dict[str, Entry]:
        """The quantized model. The fp baseline needs nothing but the checkpoint and is made here."""
        return {} if point.baseline is point else {"quantize": point.quantized}

    def check(self, point: Point) -> None:
        """The test set is there. Raises UserError."""
        require_dataset(point.settings.dataset)

    def check_data(self, point: Point) -> None:
        """The test clips can be heard, and no calibration clip is among them. Raises UserError."""
        test = point.test_corpus
        if point.uses_calibration:
            require_disjoint(point.calibration_corpus, test)

    def run(self, point: Point) -> None:
        """Also makes sure that the transcripts behind stored scores are intact. Raises UserError."""
        super().run(point)
        for each in (point, point.baseline):
            transcribed(each)

    def build(self, point: Point, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - scores are figures only
        """WER with its parts, CER, 95 % intervals, and the paired difference to the fp baseline."""
        scores, baseline = _scored(point), _scored(point.baseline)
        samples, seed = point.settings.evaluate.bootstrap_samples, point.settings.seed
        errors, words = scores.utterance_errors, scores.utterance_words
        low, high = interval(errors, words, samples, seed)
        difference = paired(errors, baseline.utterance_errors, words, samples, seed)
        transcripts = load_transcripts(transcribed(point) / TRANSCRIPTS)
        return {
            **{name: getattr(scores, name) for name in COUNTS},
            "wer_low": low,
            "wer_high": high,
            "utterances": len(transcripts),
            "audio_seconds": round(sum(item.seconds for item in transcripts), 3),
            "tokens": sum(item.tokens for item in transcripts),
            "fp_wer": baseline.wer,
            "versus_fp": asdict(difference),
            "data": point.test_corpus.report,
        }

    def log(self, point: Point, tracker: Tracker) -> None:
        """Scores, the worst transcripts with audio, and the transcripts with the model as input."""
        result = self.result(point)
        difference = {f"versus_fp_{name}": value for name, value in result["versus_fp"].items()}
        times = read_json(point.transcripts.path / TIMES)
        plain = {name: value for name, value in result.items() if not isinstance(value, dict)}
        tracker.log(self.name, {**plain, **difference, "processing_seconds": times["seconds"]})
        tracker.summary({name: result[name] for name in ("wer", "wer_low", "wer_high")})
        _log_worst(point, tracker)
        path = transcribed(point) / TRANSCRIPTS
        uses = [f"model-{point.quantized.fingerprint}"]
        name = f"transcripts-{point.transcripts.fingerprint}"
        tracker.artifact(self.name, name, "transcripts", {TRANSCRIPTS: path}, dict(point.transcripts.key), uses)


def transcribed(point: Point) -> Path:
    """Folder of the point's transcripts, made now unless they are stored."""
    return obtain(point.transcripts, lambda folder: _transcribe(point, folder))


def _transcribe(point: Point, folder: Path) -> dict[str, Any]:
    settings = point.settings
    Quantize().run(point)  # a stored model, or the fp baseline's
    utterances = point.test_corpus.utterances()
    log.info("evaluate: %d utterances of %s with %s", len(utterances), settings.dataset.name, point.label)
    speech = load(settings.model, settings.device, settings.seed)
    restore(speech, point.quantized.path / CHECKPOINT, input_bits(speech.graph, settings))
    transcripts = transcribe_corpus(
        speech,
        utterances,
        folder / f"batches{PROGRESS_SUFFIX}",
        batch_size=settings.evaluate.batch_size,
        suppress=settings.evaluate.suppress_tokens,
        kv_bits=settings.kvbits,
        key_group=settings.key_group,
    )
    save_transcripts(transcripts, folder / TRANSCRIPTS)
    return {"utterances": len(transcripts)}


def _scored(point: Point) -> WerResult:
    transcripts = load_transcripts(transcribed(point) / TRANSCRIPTS)
    return score([item.reference for item in transcripts], [item.hypothesis for item in transcripts])


def _log_worst(point: Point, tracker: Tracker) -> None:
    """The utterances that lost most words against full precision, with both transcripts and the audio."""
    own, fp = (load_transcripts(transcribed(each) / TRANSCRIPTS) for each in (point, point.baseline))
    errors, fp_errors = _scored(point).utterance_errors, _scored(point.baseline).utterance_errors
    order = np.lexsort((-errors, fp_errors - errors))[:WORST]
    utterances = {item.id: item for item in point.test_corpus.utterances()}
    columns = ["id", "reference", "hypothesis", "fp hypothesis", "errors", "fp errors"]
    rows = [_row(own[i], fp[i], int(errors[i]), int(fp_errors[i])) for i in order]
    audio = [(utterances[own[i].id].waveform(), SAMPLING_RATE) for i in order]
    tracker.audio_table("evaluate", "worst", columns, rows, audio, [own[i].reference for i in order])


def _row(own: Transcript, fp: Transcript, errors: int, fp_errors: int) -> list[Any]:
    return [own.id, own.reference, own.hypothesis, fp.hypothesis, errors, fp_errors]
