"""Transcripts that quantization changed: the stored worst of every point, aligned word by word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import jiwer
import pandas as pd

from src.machine.progress import progress
from src.reporting.panels import Panel, corpus
from src.storage.integrity import damage
from src.text.normalizers import Rules

MOST_ROWS: Final = 5_000  # in one page, shared evenly by its points: about 3 MB
WORST: Final = "worst.json"  # what the evaluate stage stores beside its scores
_KEY: Final = ("transcripts", "normalizer", "scorer", "seed")  # what tells one point's scores from another's

Parts = list[str | list[str]]


@dataclass(frozen=True)
class Row:
    """A transcript that changed, once normalised as it was scored.

    Attributes:
        clip: name of the test set with its version, and id of the utterance.
        reference: as published, not normalised.
        scored_reference: normalised.
        errors: word errors, and those of full precision.
        to_reference: alignment of the reference with this transcript: see :func:`aligned`.
        fp_to_reference: alignment of the reference with full precision's.
        to_fp: alignment of full precision's with this one.
    """

    clip: tuple[str, str]
    reference: str
    scored_reference: str
    errors: tuple[int, int]
    to_reference: Parts
    fp_to_reference: Parts
    to_fp: Parts


def changed(output_dir: Path, panels: Sequence[Panel], most: int) -> tuple[dict[str, list[Row]], list[str]]:
    """By fingerprint, the at most ``most`` changed transcripts with most errors more than full precision's.

    Returns:
        The rows, and sentences on what could not be shown.
    """
    points = pd.concat([panel.points.assign(clips=corpus(panel)) for panel in panels]) if panels else pd.DataFrame()
    share = min(most, max(MOST_ROWS // max(len(points), 1), 1))
    folders = _evaluations(output_dir) if most else {}
    found: dict[str, list[dict[str, Any]]] = {}
    missing, damaged = 0, 0
    for point in progress(points.to_dict("records") if most else [], "report, transcripts"):
        folder = folders.get(tuple(str(point[name]) for name in _KEY))
        whole = folder is None or damage(folder) is None
        rows = _read(folder) if folder is not None and whole else None
        damaged += not whole
        missing += rows is None and whole
        own = {name: str(point[name]) for name in ("clips", "normalizer")}
        differing = (row for each in rows or () if _differs(row := each | own))
        found[str(point["fingerprint"])] = list(islice(differing, share))
    notes = []
    if missing:
        notes.append(
            f"The transcripts of {missing} of {len(points)} points are no longer stored in {output_dir}/cache."
        )
    if damaged:
        notes.append(f"The transcripts of {damaged} of {len(points)} points are left out, as damaged.")
    if share < most:
        notes.append(f"{share} transcripts a point are shown: a page holds {MOST_ROWS} in all. Filters make room.")
    return _aligned_rows(found), notes


def by_frequency(rows: dict[str, list[Row]]) -> dict[tuple[str, str], str]:
    """The clips of all rows and their references, those that most points changed first."""
    references = {row.clip: row.reference for each in rows.values() for row in each}
    often = Counter(row.clip for each in rows.values() for row in each)
    return {clip: references[clip] for clip, _ in often.most_common()}


def _evaluations(output_dir: Path) -> dict[tuple[str, ...], Path]:
    """Folders of stored scores by what a record tells of them."""
    found = {}
    for path in (output_dir / "cache" / "evaluate").glob("*/key.json"):
        try:
            key = json.loads(path.read_text(encoding="utf-8"))
            found[tuple(str(key[name]) for name in _KEY)] = path.parent
        except (OSError, ValueError, KeyError):
            continue  # what is damaged is as good as absent: its point is counted as missing
    return found


def _read(folder: Path) -> list[dict[str, Any]] | None:
    try:
        rows: list[dict[str, Any]] = json.loads((folder / WORST).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        return None
    return rows


@cache
def _plain(text: str, normalizer: str) -> str:
    """Normalised, once: what full precision wrote is read again for every point."""
    return Rules.named(normalizer).normalize(text)


def _differs(row: dict[str, Any]) -> bool:
    """Whether it changed for the scorer; most rows that did not are equal to the letter, which is quick to see."""
    own, fp = row["hypothesis"], row["fp hypothesis"]
    return own != fp and _plain(own, row["normalizer"]) != _plain(fp, row["normalizer"])


def _aligned_rows(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[Row]]:
    rows = [row for each in found.values() for row in each]
    sides = [
        [_plain(row[name], row["normalizer"]) for row in rows] for name in ("reference", "hypothesis", "fp hypothesis")
    ]
    reference, own, fp = sides
    parts = iter(zip(aligned(reference, own), aligned(reference, fp), aligned(fp, own), strict=True))
    return {
        name: [
            Row(
                (row["clips"], row["id"]),
                row["reference"],
                _plain(row["reference"], row["normalizer"]),
                (row["errors"], row["fp errors"]),
                *next(parts),
            )
            for row in each
        ]
        for name, each in found.items()
    }


def aligned(sources: Sequence[str], targets: Sequence[str]) -> list[Parts]:
    """Word by word, as the error rate aligns them: words of both as a text, else ``[only source, only target]``.

    ``"the cat sat"`` and ``"the bat"`` make ``["the", ["cat", "bat"], ["sat", ""]]``.
    """
    both = [number for number, pair in enumerate(zip(sources, targets, strict=True)) if all(pair)]
    parts: list[Parts] = [[[a, b]] if a or b else [] for a, b in zip(sources, targets, strict=True)]
    if both:
        words = jiwer.process_words([sources[number] for number in both], [targets[number] for number in both])
        for position, number in enumerate(both):
            ours, theirs = words.references[position], words.hypotheses[position]
            parts[number] = list(_parts(words.alignments[position], ours, theirs))
    return parts


def _parts(chunks: Sequence[Any], source: Sequence[str], target: Sequence[str]) -> Iterator[str | list[str]]:
    for chunk in chunks:
        ours = " ".join(source[chunk.ref_start_idx : chunk.ref_end_idx])
        theirs = " ".join(target[chunk.hyp_start_idx : chunk.hyp_end_idx])
        yield ours if chunk.type == "equal" else [ours, theirs]
