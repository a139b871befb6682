"""Audio of single utterances, small enough to be part of a page. Nothing is downloaded."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from src.data.audio import SAMPLING_RATE, AudioError, decode, encode
from src.data.rows import AudioReader, ids, texts
from src.data.sources import open_rows
from src.errors import UserError
from src.machine.progress import progress
from src.reporting.panels import Panel, corpus
from src.settings import DatasetSettings

LONGEST: Final = 30  # seconds of a clip that are kept
_MEGABYTE: Final = 1_000_000

Clip = tuple[str, str]  # test set with its version (see `corpus`), id of the utterance


def encoded_clips(
    output_dir: Path, panels: Sequence[Panel], wanted: Mapping[Clip, str], megabytes: float
) -> tuple[dict[Clip, str], dict[Clip, str]]:
    """FLAC (16 kHz, mono, 16 bits) in base64 of as many clips as there is space for, the first ones first.

    Args:
        output_dir: where the records of ``panels`` are, which say where the test sets are.
        panels: the points that the clips are of.
        wanted: clips and their references; a clip whose test set now has another reference is not taken.
        megabytes: space for all.

    Returns:
        The clips, and for the others the reason why they are left out.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"  # a report must not wait for a network
    sets = {corpus(panel): _TestSet(_record(output_dir, panel)) for panel in panels}
    for name, test_set in sets.items():
        test_set.texts = {utterance: text for (where, utterance), text in wanted.items() if where == name}
    found: dict[Clip, str] = {}
    absent: dict[Clip, str] = {}
    left = megabytes * _MEGABYTE
    for name, utterance in progress([*wanted], "report, clips"):
        if left <= 0:
            absent[name, utterance] = f"a page holds {megabytes:g} MB of audio (--audio-mb)"
            continue
        try:
            found[name, utterance] = sets[name].flac(utterance)
            left -= len(found[name, utterance])
        except (UserError, AudioError, OSError, ValueError) as error:
            absent[name, utterance] = error.problem if isinstance(error, UserError) else str(error)
    return found, absent


def _record(output_dir: Path, panel: Panel) -> Path:
    return output_dir / "records" / f"{panel.points.iloc[0]['fingerprint']}.json"


class _TestSet:
    """The recordings of one test set, opened when the first is asked for."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._problem: Exception | None = None
        self.texts: Mapping[str, str] = {}  # of the clips that will be asked for

    def flac(self, utterance: str) -> str:
        """A clip; raises where there is none, again and again where the whole set cannot be read."""
        if self._problem is not None:
            raise self._problem
        try:
            numbers, read = self._opened
        except (UserError, OSError, ValueError) as error:
            self._problem = error
            raise
        if utterance not in numbers:
            raise ValueError("the test set no longer has this utterance")
        encoded = read(numbers[utterance])
        if encoded is None:
            raise ValueError("the test set holds no audio of it")
        return _flac(encoded)

    @cached_property
    def _opened(self) -> tuple[dict[str, int], AudioReader]:
        """Row numbers of the clips that are the same as when they were transcribed, and what reads them."""
        plain: dict[str, Any] = json.loads(self._record.read_text(encoding="utf-8"))["settings"]["dataset"]
        settings = DatasetSettings(**plain)
        rows = open_rows(settings)
        references = texts(rows, settings.columns.text)
        names = ids(rows, settings.columns.id)
        numbers = {name: row for row, name in enumerate(names) if self.texts.get(name) == references[row]}
        return numbers, rows.reader(sorted(numbers.values()))


def _flac(encoded: bytes) -> str:
    waveform = decode(encoded)[: LONGEST * SAMPLING_RATE]
    return base64.b64encode(encode(waveform, "FLAC", "PCM_16")).decode()
