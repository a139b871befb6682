"""One HTML page with everything: works from a file, without a network, and holds what it shows.

Data stand in a JSON block; the script writes them with ``textContent`` only, as a transcript may say anything. A
content security policy allows no other script or style than the page's own, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

from src.metrics import COSTS, METRICS
from src.reporting.changed import Row
from src.reporting.clips import Clip
from src.reporting.marks import Mark
from src.reporting.panels import Panel, rank

_PARTS: Final = Path(__file__).parent / "page"
_SCRIPTS: Final = (
    "common.js",
    "table.js",
    "plot.js",
    "transcripts.js",
    "races.js",
    "main.js",
)  # one block, in this order
FIGURES: Final = (
    *(name for metric in METRICS.values() for name in metric.described),
    *("fp_wer", "diff", "diff_low", "diff_high", "diff_significant", "wbits"),
    *("words", "substitutions", "deletions", "insertions", "loops", "empty", "capped", "utterances"),
    *("changed_transcripts", "changed_better", "changed_worse"),
)
_NAMES: Final = ("fingerprint", "model", "dataset", "method", "series", "bits", "metric")
_PROVENANCE: Final = ("normalizer", "scorer", "schema", "data", "weights", "code", "commit", "packages", "machine")


def contents(
    panels: Sequence[Panel],
    series: Mapping[str, Mark],
    rows: Mapping[str, Sequence[Row]],
    clips: tuple[Mapping[Clip, str], Mapping[Clip, str]],
    failures: Sequence[Mapping[str, Any]],
    races: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """What the page's script reads, as plain data; what full precision wrote and audio are there once.

    Args:
        panels: what one plot may compare.
        series: how their series look.
        rows: changed transcripts by the fingerprint of their point.
        clips: audio, and the reasons for which there is none.
        failures: see :func:`~src.reporting.failed.failed`.
        races: see :func:`~src.reporting.races.contents_of`.
        notes: sentences on what is left out.
    """
    audio, silent = clips
    book = _Book({clip: number for number, clip in enumerate(audio)}, silent)
    return {
        "panels": [panel.name for panel in panels],
        "series": [{"name": name, **vars(mark)} for name, mark in series.items()],
        "orders": {name: _order(panels, name) for name in ("model", "dataset", "method", "bits")},
        "metrics": [
            {
                **{told: getattr(metric, told) for told in ("name", "heading", "digits", "scale")},
                "label": metric.label[0].upper() + metric.label[1:],
                "cost": metric in COSTS,
            }
            for metric in METRICS.values()
        ],
        "points": [{"panel": number, **point} for number, panel in enumerate(panels) for point in _points(panel)],
        "transcripts": {name: [book.row(row) for row in own] for name, own in rows.items() if own},
        "utterances": book.utterances,
        "audio": list(audio.values()),
        "failures": failures,
        "races": races,
        "notes": notes,
    }


def _order(panels: Sequence[Panel], name: str) -> list[str]:
    return sorted({str(value) for panel in panels for value in panel.points[name]}, key=rank)


def _points(panel: Panel) -> list[dict[str, Any]]:
    columns = [name for name in (*_NAMES, *FIGURES, *_PROVENANCE) if name in panel.points]
    rows: list[dict[str, Any]] = panel.points[columns].to_dict("records")
    return rows


class _Book:
    """Utterances that transcripts refer to by number."""

    def __init__(self, heard: Mapping[Clip, int], silent: Mapping[Clip, str]) -> None:
        self.utterances: list[dict[str, Any]] = []
        self._heard, self._silent = heard, silent
        self._numbers: dict[str, int] = {}

    def row(self, row: Row) -> list[Any]:
        """Number of the utterance, word errors, and the two alignments."""
        errors, fp_errors = row.errors
        key = json.dumps([row.clip, row.fp_to_reference])
        if key not in self._numbers:
            self._numbers[key] = len(self.utterances)
            texts = {"reference": row.scored_reference, "published": row.reference}
            about = {"id": row.clip[1], **texts, "errors": fp_errors, "fp": row.fp_to_reference}
            sound = {"audio": self._heard.get(row.clip), "silent": self._silent.get(row.clip)}
            self.utterances.append({**about, **sound})
        return [self._numbers[key], errors, row.to_reference, row.to_fp]


def html(title: str, data: Mapping[str, Any]) -> str:
    style = (_PARTS / "style.css").read_text(encoding="utf-8")
    script = "\n".join((_PARTS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    parts = {"style": style, "script": script, "data": as_json(data), "title": escape(title)}
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    return Template((_PARTS / "page.html").read_text(encoding="utf-8")).substitute(**parts, **hashes)


def as_json(value: Any) -> str:
    """JSON that may stand in a script element: no ``<``, so that no text can end it or open a comment."""
    text = json.dumps(_plain(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    """NaN, which JSON does not know, as null; numpy's numbers as Python's; floats in the digits that are shown."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _hash(text: str) -> str:
    """Source expression of a content security policy for an inline element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
