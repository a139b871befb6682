"""What needs the model: transcripts of the test set and of the hallucination probe, each an entry of its own.

It decodes here, quantization simulated in torch, or in the runtime of ``evaluate.runtime``, from the exported files.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from src.data.transcripts import Transcript, save_transcripts
from src.data.utterance import Utterance
from src.decoding.transcribe import journal_seconds, transcribe_corpus
from src.errors import UserError
from src.machine.load import watched
from src.machine.provenance import MACHINE, Made, attempts
from src.methods.asked import input_bits
from src.models.loading import load
from src.quant.restore import restore
from src.runtimes.corpus import journal_figures, transcribe_in_runtime
from src.runtimes.folder import file_bytes
from src.runtimes.job import RuntimeJob
from src.scoring import probe
from src.settings import TORCH
from src.stages.base import obtain, read_json
from src.stages.export import FOLDER, Export
from src.stages.point import Point
from src.stages.quantize import CHECKPOINT, Quantize
from src.storage.digest import sha256_file
from src.storage.journal import digest
from src.storage.store import PROGRESS_SUFFIX, Entry, write_json

log = logging.getLogger(__name__)

TRANSCRIPTS = "transcripts.jsonl"
SPEED = "speed.json"


class _Decoder(ABC):
    """A model to decode with; it is loaded once, and only if something is absent."""

    @abstractmethod
    def transcribe(self, utterances: Sequence[Utterance], journal: Path, label: str) -> list[Transcript]:
        """Transcripts of all utterances in their order, resumed from the journal."""

    @abstractmethod
    def about(self, journal: Path) -> dict[str, Any]:
        """What :func:`speed` tells of a finished journal beside its seconds: ``load_model`` among them."""


class _Simulated(_Decoder):
    def __init__(self, point: Point) -> None:
        self._point, settings = point, point.settings
        Quantize().run(point)  # a stored model, or the fp baseline's
        start = time.perf_counter()
        self._speech = load(settings.model, settings.device, settings.seed)
        restore(self._speech, point.quantized.path / CHECKPOINT, input_bits(self._speech.graph, settings))
        self._speech.cast(getattr(torch, settings.dtype))
        self._load_seconds = time.perf_counter() - start

    def transcribe(self, utterances: Sequence[Utterance], journal: Path, label: str) -> list[Transcript]:
        settings = self._point.settings
        return transcribe_corpus(
            self._speech,
            utterances,
            journal,
            batch_size=settings.evaluate.batch_size,
            suppress=settings.evaluate.suppress_tokens,
            truncate=settings.evaluate.long_form == "truncate",
            by_clip=settings.evaluate.window == "clip",
            kv_bits=settings.kvbits,
            key_group=settings.key_group,
            basis={"model": sha256_file(self._point.quantized.path / CHECKPOINT)},
            label=label,
        )

    def about(self, journal: Path) -> dict[str, Any]:  # noqa: ARG002 - it is this process's
        return {"load_model": self._load_seconds}


class _Deployed(_Decoder):
    def __init__(self, point: Point) -> None:
        Quantize().run(point)
        if not Export().is_done(point):
            Export().run(point)
        self._folder, settings = point.exported.path / FOLDER, point.settings
        self._job = RuntimeJob(
            runtime=settings.evaluate.runtime,
            folder=str(self._folder.absolute()),
            threads=torch.get_num_threads(),
            language=settings.model.language,
            suppress=settings.evaluate.suppress_tokens,
            truncate=settings.evaluate.long_form == "truncate",
        )

    def transcribe(self, utterances: Sequence[Utterance], journal: Path, label: str) -> list[Transcript]:
        basis = {"files": digest([[file.name, sha256_file(file)] for file in sorted(self._folder.iterdir())])}
        return transcribe_in_runtime(self._job, utterances, journal, basis=basis, label=label)

    def about(self, journal: Path) -> dict[str, Any]:
        """With ``runtime``: its name, the bytes of its files, and what :func:`journal_figures` tells of it."""
        figures = journal_figures(journal)
        about = {"name": self._job.runtime, "file_bytes": file_bytes(self._folder), **figures}
        return {"load_model": figures["load_ms"] / 1000, "runtime": about}


def decoded(point: Point) -> dict[str, Entry]:
    """Entries of what the point's model wrote."""
    entries = {"transcripts": point.transcripts, "probe": point.probe}
    return {name: entry for name, entry in entries.items() if entry is not None}


def read(point: Point) -> dict[str, Entry]:
    """Entries that scoring reads, each once: own ones, the fp baseline's and, of another runtime, the simulation's."""
    entries = decoded(point)
    if point.baseline is not point:
        entries |= {f"fp_{name}": entry for name, entry in decoded(point.baseline).items()}
    if point.simulated is not point and point.simulated is not point.baseline:
        entries["simulated_transcripts"] = point.simulated.transcripts
    return entries


def require_decoded(point: Point) -> None:
    """Checks that scoring needs no model.

    Raises:
        UserError: an entry of :func:`read` is absent or damaged.
    """
    absent = [entry for entry in read(point).values() if not entry.is_complete()]
    if absent:
        paths = ", ".join(str(entry.path) for entry in absent)
        problem = f"nothing may be decoded, but {point.label} or what it is compared with lacks {paths}"
        without = " or, where only the probe is absent, evaluate.probe_clips=0" if point.probe else ""
        remedy = f"Run the point with evaluate.rescore=false first, or set output_dir to where it was run{without}"
        raise UserError("evaluate.rescore", problem, remedy)


def decode(point: Point) -> None:
    """Makes the entries of :func:`read` that are not stored."""
    for each in (point, point.baseline):
        _decode(each)
    _decode(point.simulated, only_test_set=True)


def _decode(point: Point, *, only_test_set: bool = False) -> None:
    in_torch = point.settings.evaluate.runtime == TORCH
    decoder = cache(partial(_Simulated if in_torch else _Deployed, point))
    device = point.settings.device if in_torch else "cpu"
    obtain(point.transcripts, lambda folder: _test_set(point, decoder(), folder), device)
    if point.probe is not None and not only_test_set:
        obtain(point.probe, lambda folder: _probe(point, decoder(), folder), device)


def _test_set(point: Point, decoder: _Decoder, folder: Path) -> dict[str, Any]:
    corpus = point.test_corpus
    utterances = corpus.utterances()
    log.info("evaluate: %d utterances of %s with %s", len(utterances), point.settings.dataset.name, point.label)
    return {**_transcribe(decoder, utterances, folder, "evaluate"), "data": corpus.report}


def _probe(point: Point, decoder: _Decoder, folder: Path) -> dict[str, Any]:
    clips = probe.clips(point.settings.evaluate.probe_clips, point.settings.seed)
    return _transcribe(decoder, clips, folder, "probe")


def _transcribe(decoder: _Decoder, utterances: Sequence[Utterance], folder: Path, label: str) -> dict[str, Any]:
    journal = folder / f"batches{PROGRESS_SUFFIX}"
    whole = not journal.exists() or not journal.stat().st_size  # nothing was decoded before this run
    with watched() as load:
        transcripts = decoder.transcribe(utterances, journal, label)
    about = decoder.about(journal)
    seconds = {"load_model": round(about.pop("load_model"), 3), **journal_seconds(journal)}
    audio = sum(item.seconds for item in transcripts)
    told = _speed(audio, seconds, attempts(folder), load.others if whole else None)
    write_json(folder / SPEED, {**told, **(about if told["rtfx"] is not None else {})})
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

    Of another runtime than torch, ``runtime`` tells more: see :func:`~src.runtimes.corpus.journal_figures`.
    """
    path = point.transcripts.path / SPEED
    return read_json(path) if path.exists() else {}
