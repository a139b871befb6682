"""What needs the model: transcripts of the test set and of the hallucination probe, each an entry of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from src.data.transcripts import save_transcripts
from src.data.utterance import Utterance
from src.decoding.transcribe import journal_seconds, transcribe_corpus
from src.errors import UserError
from src.machine.load import watched
from src.machine.provenance import MACHINE, Made, attempts
from src.methods.apply import input_bits
from src.models.loading import load
from src.models.speech import SpeechModel
from src.quant.restore import restore
from src.scoring import probe
from src.stages.base import obtain, read_json
from src.stages.point import Point
from src.stages.quantize import CHECKPOINT, Quantize
from src.storage.digest import sha256_file
from src.storage.store import PROGRESS_SUFFIX, Entry, write_json

log = logging.getLogger(__name__)

TRANSCRIPTS = "transcripts.jsonl"
SPEED = "speed.json"


@dataclass(frozen=True)
class _Ready:
    """A model to decode with, and the seconds it took to load."""

    speech: SpeechModel
    seconds: float


def decoded(point: Point) -> dict[str, Entry]:
    """Entries of what the point's model wrote, of which scoring reads its own and its fp baseline's."""
    entries = {"transcripts": point.transcripts, "probe": point.probe}
    return {name: entry for name, entry in entries.items() if entry is not None}


def require_decoded(point: Point) -> None:
    """Checks that scoring needs no model.

    Raises:
        UserError: transcripts of the test set or the probe, of the point or its fp baseline, are absent or damaged.
    """
    read = {entry.path: entry for each in (point, point.baseline) for entry in decoded(each).values()}
    absent = [entry for entry in read.values() if not entry.is_complete()]
    if absent:
        paths = ", ".join(str(entry.path) for entry in absent)
        problem = f"nothing may be decoded, but {point.label} or its fp baseline lacks {paths}"
        without = " or, where only the probe is absent, evaluate.probe_clips=0" if point.probe else ""
        remedy = f"Run the point with evaluate.rescore=false first, or set output_dir to where it was run{without}"
        raise UserError("evaluate.rescore", problem, remedy)


def decode(point: Point) -> None:
    """Makes the entries of :func:`decoded`, of the point and its fp baseline, that are not stored."""
    for each in (point, point.baseline):
        _decode(each)


def _decode(point: Point) -> None:
    model = cache(partial(_restored, point))  # loaded once, and only if something is absent
    device = point.settings.device
    obtain(point.transcripts, lambda folder: _test_set(point, model(), folder), device)
    if point.probe is not None:
        obtain(point.probe, lambda folder: _probe(point, model(), folder), device)


def _restored(point: Point) -> _Ready:
    settings = point.settings
    Quantize().run(point)  # a stored model, or the fp baseline's
    start = time.perf_counter()
    speech = load(settings.model, settings.device, settings.seed)
    restore(speech, point.quantized.path / CHECKPOINT, input_bits(speech.graph, settings))
    speech.cast(getattr(torch, settings.dtype))
    return _Ready(speech, time.perf_counter() - start)


def _test_set(point: Point, model: _Ready, folder: Path) -> dict[str, Any]:
    corpus = point.test_corpus
    utterances = corpus.utterances()
    log.info("evaluate: %d utterances of %s with %s", len(utterances), point.settings.dataset.name, point.label)
    return {**_transcribe(point, model, utterances, folder, "evaluate"), "data": corpus.report}


def _probe(point: Point, model: _Ready, folder: Path) -> dict[str, Any]:
    clips = probe.clips(point.settings.evaluate.probe_clips, point.settings.seed)
    return _transcribe(point, model, clips, folder, "probe")


def _transcribe(
    point: Point, model: _Ready, utterances: Sequence[Utterance], folder: Path, label: str
) -> dict[str, Any]:
    settings, journal = point.settings, folder / f"batches{PROGRESS_SUFFIX}"
    whole = not journal.exists() or not journal.stat().st_size  # nothing was decoded before this run
    with watched() as load:
        transcripts = transcribe_corpus(
            model.speech,
            utterances,
            journal,
            batch_size=settings.evaluate.batch_size,
            suppress=settings.evaluate.suppress_tokens,
            truncate=settings.evaluate.long_form == "truncate",
            by_clip=settings.evaluate.window == "clip",
            kv_bits=settings.kvbits,
            key_group=settings.key_group,
            basis={"model": sha256_file(point.quantized.path / CHECKPOINT)},
            label=label,
        )
    seconds = {"load_model": round(model.seconds, 3), **journal_seconds(journal)}
    audio = sum(item.seconds for item in transcripts)
    write_json(folder / SPEED, _speed(audio, seconds, attempts(folder), load.others if whole else None))
    save_transcripts(transcripts, folder / TRANSCRIPTS)
    return {"utterances": len(transcripts)}


def _speed(audio: float, seconds: Mapping[str, float], places: Made, load: float | None) -> dict[str, Any]:
    """What :func:`speed` reads: of ``audio`` seconds, decoded in ``places`` beside ``load`` processors of others."""
    machines = [{name: place.get(name) for name in MACHINE} for place in places]
    if any(each != machines[0] for each in machines):
        told = " and ".join(dict.fromkeys(f"{each['threads']} threads of {each['processor']}" for each in machines))
        return {"rtfx": None, "seconds": None, "refused": f"it was begun and ended on different machines: {told}"}
    return {"rtfx": round(audio / seconds["total"], 2), "seconds": seconds, "on": {**machines[0], "load": load}}


def speed(point: Point) -> dict[str, Any]:
    """RTFx, seconds of audio a second of processing, the seconds by part of the point's transcripts, and ``on`` what.

    Processing is what :func:`~src.decoding.transcribe.journal_seconds` calls total, warm-up and ``load_model`` left
    out: from encoded audio to text, over all batches, also of a run that was killed and continued. ``on`` tells
    processor, threads and device, and as ``load`` the processors that others kept busy meanwhile: None where that is
    not known of all of it. What two machines did is no speed of either: null, with the reason as ``refused``. Empty
    where the transcripts are no longer stored.
    """
    path = point.transcripts.path / SPEED
    return read_json(path) if path.exists() else {}
