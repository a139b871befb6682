"""Evaluate: transcribe the test set with the quantized model, score it, and compare it with full precision."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from src.data.audio import SAMPLING_RATE
from src.data.corpora import require_disjoint
from src.data.recordings import require_whole_sessions
from src.data.sources import open_rows
from src.data.transcripts import Transcript, load_transcripts
from src.errors import UserError
from src.models.families import family_of
from src.models.loading import check_processors
from src.runtimes.folder import BY_CLIP, file_bytes, require_installed
from src.scoring import probe
from src.scoring.comparison import WORST_COLUMNS, Scored, changes, difference, scored, worst
from src.scoring.failure_modes import Failures, failures
from src.scoring.legibility import announce
from src.stages.base import RESULT, TIMES, Stage, obtain, read_json
from src.stages.decoding import TRANSCRIPTS, decode, decoded, read, require_decoded, speed
from src.stages.export import FOLDER
from src.stages.point import FULL_DTYPE, MODEL_WINDOW, WORST_UTTERANCES, Point
from src.storage.store import Entry, write_json
from src.tracking import MAX_CLIP_SECONDS, MAX_CLIPS, Tracker

log = logging.getLogger(__name__)

WORST = "worst.json"


class Evaluate(Stage):
    name = "evaluate"

    def entry(self, point: Point) -> Entry:
        """Scores; the transcripts they rest on are entries of their own."""
        return point.evaluation

    def parts(self, point: Point) -> dict[str, Entry]:
        """With the transcripts, the clips they are of, and those they are compared with."""
        fp = {} if point.baseline is point else {"fp_quantize": point.baseline.quantized}
        return {"corpus": point.test_set.entry(point.store), **fp, **read(point), **super().parts(point)}

    def needs(self, point: Point) -> dict[str, Entry]:
        """The quantized model and what another runtime reads of it, unless only stored transcripts are read.

        The fp baseline and the simulation are made here if need be.
        """
        needless = point.baseline is point or point.settings.evaluate.rescore
        exported = {} if point.simulated is point else {"export": point.exported}
        return {} if needless else {"quantize": point.quantized, **exported}

    def check(self, point: Point) -> None:
        """The test set can be read, or the transcripts to score again are there. Raises UserError."""
        model, window = point.settings.model, point.settings.evaluate.window
        if window != MODEL_WINDOW and not family_of(model.family).pads_clips:
            problem = f"{window!r} spares silence that is padded to clips, and {model.family} pads none"
            raise UserError("evaluate.window", problem, f"Leave evaluate.window={MODEL_WINDOW} with {model.name}")
        if point.simulated is not point:
            _check_runtime(point)
        if point.settings.evaluate.rescore:
            require_decoded(point)
        else:
            open_rows(point.settings.dataset)
            if not all(entry.path.is_dir() for entry in decoded(point).values()):
                check_processors(point.settings.model)

    def is_done(self, point: Point) -> bool:
        """Scores are stored, and not to be computed again."""
        return not point.settings.evaluate.rescore and super().is_done(point)

    def check_data(self, point: Point) -> None:
        """The test clips can be heard and scored, and no calibration clip is among them. Raises UserError."""
        if point.settings.evaluate.rescore:
            return
        test = point.test_corpus
        require_whole_sessions(test)
        if point.uses_calibration:
            require_disjoint(point.calibration_corpus, test)

    def run(self, point: Point) -> None:
        """Also makes sure that the transcripts behind stored scores are intact. Raises UserError."""
        if point.settings.evaluate.rescore:
            require_decoded(point)
            obtain(point.evaluation, lambda folder: self.build(point, folder), anew=True)
        else:
            super().run(point)
            decode(point)

    def build(self, point: Point, folder: Path) -> dict[str, Any]:
        """Error rates with intervals, failures, the paired difference to the fp baseline, and the worst transcripts."""
        if not point.settings.evaluate.rescore:
            decode(point)
        own, fp = (scored(each.transcripts.path / TRANSCRIPTS, point.rules) for each in (point, point.baseline))
        announce(own.texts, len(own.transcripts), own.rules)
        beside = {} if point.simulated is point else _against_simulation(point, own)
        samples, seed = point.settings.evaluate.bootstrap_samples, point.settings.seed
        write_json(folder / WORST, {"rows": worst(own, fp, WORST_UTTERANCES)})
        return {
            **own.figures(samples, seed),
            "long_form": dict(Counter(item.long_form for item in own.transcripts if item.long_form)),
            "data": read_json(point.transcripts.path / RESULT)["data"],
            "fp_wer": fp.scores.wer,
            "fp_failures": asdict(failures(fp.transcripts, fp.scores, fp.rules)[0]),
            "versus_fp": asdict(difference(own, fp, samples, seed)),
            "changed_from_fp": asdict(changes(own, fp)),
            "probe": _probed(point),
            "fp_probe": _probed(point.baseline),
            **beside,
        }

    def log(self, point: Point, tracker: Tracker) -> None:
        """Scores, failures by duration, the worst transcripts with audio, and the transcripts as an artifact."""
        result = self.result(point)
        times = read_json(point.transcripts.path / TIMES)
        spoken = speed(point)
        rtfx: dict[str, Any] = {}
        if spoken.get("rtfx") is not None:
            where = {f"rtfx_{name}": figure for name, figure in spoken["on"].items() if figure is not None}
            rtfx = {"rtfx": spoken["rtfx"], **where}
        figures = _flat({**result, "data": _counts(result["data"])})
        beside = {"wbits": point.settings.wbits, "processing_seconds": times["seconds"]}
        runtime = {f"runtime_{name}": figure for name, figure in spoken.get("runtime", {}).items()}
        tracker.log(self.name, {**beside, **figures, **rtfx, **runtime})
        tracker.table(self.name, "failures_by_duration", *_by_duration(result["failures_by_duration"]))
        if result["probe"]:
            tracker.table(self.name, "probe", *_by_kind(result["probe"]["by_kind"], result["fp_probe"]["by_kind"]))
        _log_worst(point, tracker)
        uses = [f"model-{point.quantized.fingerprint}"]
        files = {TRANSCRIPTS: point.transcripts.path / TRANSCRIPTS}
        name = f"transcripts-{point.transcripts.fingerprint}"
        tracker.artifact(self.name, name, "transcripts", files, dict(point.transcripts.key), uses)


def _check_runtime(point: Point) -> None:
    """Whether the runtime is installed, and evaluate's other settings mean something to it. Raises UserError."""
    settings, runtime = point.settings, point.settings.evaluate.runtime
    require_installed(runtime, "evaluate.runtime")
    window = (settings.evaluate.window, MODEL_WINDOW)
    for field, (found, only), known in (
        ("dtype", (settings.dtype, FULL_DTYPE), False),
        ("evaluate.window", window, runtime in BY_CLIP),
    ):
        if found != only and not known:
            raise UserError(field, f"{found!r} is unknown to files of {runtime}", f"Use {field}={only}")


def _against_simulation(point: Point, own: Scored) -> dict[str, Any]:
    """How what the runtime wrote differs from what the same point writes in torch, and the bytes of its files."""
    settings = point.settings
    simulated = scored(point.simulated.transcripts.path / TRANSCRIPTS, point.rules)
    versus = difference(own, simulated, settings.evaluate.bootstrap_samples, settings.seed)
    changed = changes(own, simulated)
    told = f"{versus.difference:+.2f} ({versus.low:+.2f} to {versus.high:+.2f})"
    equal = len(own.transcripts) - changed.transcripts
    log.info(
        "evaluate: %s writes %d of %d transcripts as the simulation does; WER %s points",
        *(settings.runtime_name, equal, len(own.transcripts), told),
    )
    return {
        "simulated_wer": simulated.scores.wer,
        "versus_simulated": asdict(versus),
        "changed_from_simulated": asdict(changed),
        "exported_bytes": file_bytes(point.exported.path / FOLDER),
    }


def _probed(point: Point) -> dict[str, Any] | None:
    """Hallucinations of one model in all clips of the probe, and by kind of sound; None without a probe."""
    if point.probe is None:
        return None
    transcripts = load_transcripts(point.probe.path / TRANSCRIPTS)
    kinds: dict[str, list[Transcript]] = {}
    for transcript in transcripts:
        kinds.setdefault(probe.kind(transcript), []).append(transcript)
    by_kind = [{"kind": kind, **asdict(probe.hallucinations(part, point.rules))} for kind, part in kinds.items()]
    return {**asdict(probe.hallucinations(transcripts, point.rules)), "by_kind": by_kind}


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of nested results under names joined by underscores; what is None or a list is left out."""
    figures: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}_{inner}": figure for inner, figure in _flat(value).items()}
        elif isinstance(value, int | float | str):
            figures[name] = value
    return figures


def _counts(data: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a corpus without what it says of single clips, which are any number."""
    return {**data, "bad_audio": {"count": data["bad_audio"]["count"]}}


def _by_duration(buckets: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the failures in each range of seconds."""
    columns = [field.name for field in fields(Failures)]
    spans = [
        f"{low:g}-{high:g}" if high is not None else f">= {low:g}" for low, high in (b["seconds"] for b in buckets)
    ]
    return columns, [[span, *(b[name] for name in columns[1:])] for span, b in zip(spans, buckets, strict=True)]


def _by_kind(own: list[dict[str, Any]], fp: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the words in each kind of sound, and of those that full precision hears."""
    columns = ["kind", *(field.name for field in fields(probe.Hallucinations))]
    rows = [
        [*(mine[name] for name in columns), its["words"], its["clips_with_words"]]
        for mine, its in zip(own, fp, strict=True)
    ]
    return [*columns, "fp words", "fp clips_with_words"], rows


def _log_worst(point: Point, tracker: Tracker) -> None:
    """The utterances that lost most words against full precision, with both transcripts and the start of the audio."""
    rows = read_json(point.evaluation.path / WORST)["rows"][:MAX_CLIPS]
    found = sorted(point.test_corpus.utterances(), key=lambda item: -item.position)
    utterances = {item.session or item.id: item for item in found}  # of a session, its first clip
    longest = MAX_CLIP_SECONDS * SAMPLING_RATE
    audio = [(utterances[row["id"]].waveform()[:longest].copy(), SAMPLING_RATE) for row in rows]
    captions = [row["reference"] for row in rows]
    cells = [[row[column] for column in WORST_COLUMNS] for row in rows]
    tracker.audio_table("evaluate", "worst", WORST_COLUMNS, cells, audio, captions)
