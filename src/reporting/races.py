"""Races for the best within a budget: those that a folder holds, and the Pareto front of one as a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from src.metrics import WER
from src.records import CHOSEN, RACES, Entrant, Race, Record, read_race
from src.reporting import canvas
from src.reporting.marks import COLOURS, UNSEEN, marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FRONT: Final[dict[str, Any]] = {"color": UNSEEN, "linewidth": 1.0}
_BOUND: Final[dict[str, Any]] = {"color": COLOURS[2], "linewidth": 1.0, "linestyle": (0, (5, 3))}
_CHOSEN: Final[dict[str, Any]] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 11,
    "markerfacecolor": "none",
    "markeredgecolor": COLOURS[2],
    "markeredgewidth": 1.5,
}
_IN_PART: Final[dict[str, Any]] = {"linestyle": "none", "marker": "o", "markerfacecolor": "none", "color": UNSEEN}


def read_races(output_dir: Path) -> tuple[list[Race], list[str]]:
    """All races below ``output_dir``, by name, and a sentence on each file that cannot be trusted."""
    found, notes = [], []
    for file in sorted((output_dir / RACES).glob("*.json")):
        try:
            found.append(read_race(file))
        except ValueError as error:
            told = " ".join(str(error).split())
            notes.append(f"Left out, as damaged or of another version: the race in {file} ({told}). Run it again.")
    return found, notes


def without_parts(records: Sequence[Record], races: Iterable[Race]) -> list[Record]:
    """The records but for those of a race's rounds on a part of the clips, which would compare with no other point."""
    rounds = (each for race in races for candidate in race.candidates for each in candidate.rounds)
    parts = {each.record for each in rounds if each.clips is not None}
    parts |= {member.fingerprint for record in records if record.fingerprint in parts for member in record.members}
    return [record for record in records if record.fingerprint not in parts]


def race_front(race: Race) -> Figure:
    """Error rates against sizes, of a race in which something was heard: the front is named, the choice ringed.

    Each is of the last round that the candidate was heard in, with its interval.
    """
    heard = [each for each in race.candidates if each.rounds]
    series = marks(str(each.model) for each in heard)
    drawn, (ax,) = canvas.figure(7.2, 4.2, 1, legend=True)
    at, rates, low, high = np.array([_place(each) for each in heard], float).T
    canvas.error_axis(ax, rates, low, high)
    for name, mark in series.items():
        own = np.array([each.model == name for each in heard])
        canvas.whiskers(ax, at[own], low[own], high[own], COLOURS[mark.colour])
        for each, size, rate in zip(np.array(heard, object)[own], at[own], rates[own], strict=True):
            fill = {} if each.rounds[-1].clips is None else {"markerfacecolor": "none"}
            ax.plot([size], [rate], linestyle="none", markersize=5, **canvas.style(mark), **fill)
    front = sorted((each for each in heard if each.front), key=_place)
    x, y = np.array([_place(each)[:2] for each in front], float).T
    ax.plot(x, y, zorder=0, **_FRONT)
    for each, size, rate in zip(heard, at, rates, strict=True):
        if each.outcome == CHOSEN:
            ax.plot([size], [rate], **_CHOSEN)
    _draw_bounds(ax, race)
    canvas.name_points(ax, x, y, [f"{each.method} {each.bits}" for each in front])
    metric = race.metric or WER.heading
    ax.set(xlabel="file, MB", ylabel=f"{metric}, % (95 % interval)")
    ax.set_title(f"{race.title[0].upper()}{race.title[1:]}", loc="left")
    lines = {"chosen": _CHOSEN | {"markersize": 8}, "heard on a part of the clips": _IN_PART, "Pareto front": _FRONT}
    canvas.show_legend(drawn, series, **lines, **({"bound": _BOUND} if {"megabytes", "wer"} & set(race.bounds) else {}))
    return drawn


def _draw_bounds(ax: Any, race: Race) -> None:
    for name, line in (("megabytes", ax.axvline), ("wer", ax.axhline)):
        if name in race.bounds:
            line(race.bounds[name], zorder=0, **_BOUND)


def _place(each: Entrant) -> tuple[float, float, float, float]:
    """Its size, and the error rate of its last round with the interval."""
    last = each.rounds[-1]
    assert each.megabytes is not None  # it was heard
    return each.megabytes, last.wer, last.wer_low, last.wer_high


def draw_races(folder: Path, races: Iterable[Race]) -> list[Path]:
    """Writes the fronts of those races in which something was heard, as PNG and SVG; returns the files."""
    chosen = [race for race in races if any(each.rounds for each in race.candidates)]
    return [path for race in chosen for path in canvas.write(race_front(race), folder, f"race-{race.name}")]


def contents_of(race: Race) -> dict[str, Any]:
    """What the page shows of a race, as plain data: the candidates in the order in which they fared."""
    ranked = [
        {**each.model_dump(mode="json"), "name": each.name, "chosen": each.outcome == CHOSEN} for each in race.ranked
    ]
    told = {"title": f"{race.title[0].upper()}{race.title[1:]}", "heard": race.heard, "rounds": race.rounds}
    plain = race.model_dump(mode="json", include={"name", "bounds", "fixed", "agreements", "export"})
    return {**plain, **told, "metric": race.metric or WER.heading, "candidates": ranked}
