"""The folder of a report: tables, plots, one page, and a list of these files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from src.errors import UserError
from src.records import Race
from src.reporting.changed import by_frequency, changed
from src.reporting.clips import encoded_clips
from src.reporting.collect import BESIDE, PACKAGE
from src.reporting.drawing import draw
from src.reporting.marks import marks
from src.reporting.page import contents, html
from src.reporting.panels import panels
from src.reporting.races import contents_of, draw_races
from src.reporting.significance import PairedTests
from src.reporting.tables import Format, Layout, render
from src.storage.store import write_atomic, write_json

PAGE: Final = "index.html"
_LIST: Final = "files.json"  # what the last report wrote here, which the next one replaces
_TABLES: Final[dict[str, Format]] = {"table.md": "markdown", "table.tex": "latex", "points.csv": "csv"}


@dataclass(frozen=True)
class Limits:
    """How much a report holds.

    Attributes:
        transcripts: changed transcripts a point.
        audio_mb: megabytes of audio in the page.
        plots: combinations of model and test set that are drawn as files.
    """

    transcripts: int
    audio_mb: int
    plots: int


@dataclass
class Report:
    """What was made.

    Attributes:
        table: as Markdown; empty where the points cannot be put into one.
        files: all that were written, the page first.
        notes: sentences on what is left out or shown apart.
    """

    table: str = ""
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_report(
    output_dir: Path,
    folder: Path,
    points: pd.DataFrame,
    failures: Sequence[dict[str, Any]],
    layout: Layout,
    limits: Limits,
    notes: Sequence[str] = (),
    races: Sequence[Race] = (),
    tests: PairedTests | None = None,
) -> Report:
    """Writes everything into ``folder``; files of an earlier report there are replaced or removed.

    Points that cannot be compared are refused by the tables, which a note says, and are apart in plots and page.
    ``notes`` tell of records that are left out, ``tests`` what is not told from the best.
    """
    shown = panels(points) if len(points) else []
    series = marks(name for panel in shown for name in panel.points["series"])
    report = Report(notes=[*notes])
    tables = _tables(points, layout, report, tests) if shown else {}
    files = draw(output_dir, folder, shown, series, limits.plots) + (draw_races(folder, races) if limits.plots else [])
    if len(shown) > limits.plots > 0:
        left = len(shown) - limits.plots
        report.notes.append(
            f"{left} of {len(shown)} pairs of model and test set have no plot files (--plots); the page has all."
        )
    rows, missing = changed(output_dir, shown, limits.transcripts)
    report.notes += [*missing, *_versions(points)]
    clips = encoded_clips(output_dir, shown, by_frequency(rows) if limits.audio_mb else {}, limits.audio_mb)
    data = contents(shown, series, rows, clips, failures, list(map(contents_of, races)), report.notes)
    tables[PAGE] = html(f"Edge ASR: {output_dir.resolve().name}", data)
    for name, text in tables.items():
        write_atomic(folder / name, text)
    report.files += [*(folder / name for name in reversed(tables)), *files]
    _replace_list(folder, report.files)
    return report


def _tables(points: pd.DataFrame, layout: Layout, report: Report, tests: PairedTests | None) -> dict[str, str]:
    found = {}
    for name, form in _TABLES.items():
        try:
            found[name] = render(points, layout, form, tests)
        except UserError as error:
            if form == "markdown":
                report.notes.append(f"No table: {error} Plots and page show them apart.")
    report.table = found.get("table.md", "")
    return found


def _versions(points: pd.DataFrame) -> list[str]:
    """What was computed by different code, with different packages or elsewhere, among the points or within one."""
    told = []
    packages = {name: f"versions of {name.removeprefix(PACKAGE)}" for name in points if name.startswith(PACKAGE)}
    for name, what in {"code": "versions of the code", **packages, "machine": "machines"}.items():
        found = sorted({each for value in (points[name] if len(points) else ()) for each in value.split(BESIDE)})
        if len(found) > 1:
            told.append(f"The points were computed by {len(found)} {what}: {'; '.join(found)}.")
    return told


def _replace_list(folder: Path, files: Sequence[Path]) -> None:
    """Removes what an earlier report listed and this one did not write."""
    path = folder / _LIST
    names = sorted(file.name for file in files)
    with suppress(FileNotFoundError, ValueError):  # the first report here, or a list that nobody can read
        for name in map(str, json.loads(path.read_text(encoding="utf-8"))):
            if name not in names and Path(name).name == name:
                (folder / name).unlink(missing_ok=True)
    write_json(path, names)
