"""What a record is put together from: stored results of a point and, where they cannot be read, what it held of them.

A record names the entries that its parts come from. So a part whose entry was damaged or cleared away since is known to
be the same, and stays: a run that does not make it again never loses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from src.machine.provenance import Made, made, separate
from src.records import Record
from src.stages import ALL_STAGES
from src.stages.base import RESULT, read_json
from src.stages.decoding import speed
from src.stages.point import Point
from src.stages.profile import DECODED
from src.storage.store import Entry

log = logging.getLogger(__name__)

# Where a record holds a part that is not the result of a stage under its own name.
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    DECODED: ("results", "profile", "decoded"),
    "transcripts": ("measured", "evaluate"),
    "latency": ("measured", "latency"),
    "measure": ("measured", "runtimes"),
}
_STAGES: Final = {stage.name: stage for stage in ALL_STAGES}
_ELSEWHERE: Final = "it was not measured on this machine with these settings"


@dataclass
class Parts:
    """Parts of a record that depend on stored results, as they stand in it; ``made`` is by result where it was made."""

    results: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    times: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)


def found_parts(point: Point, held: Record | None) -> Parts:
    """All parts of a point's record, read or kept from the one that is ``held``; of what is lost, the log tells.

    Times are told in their place where this machine measured them. Others that the record held are under ``others``.
    """
    parts, kept = Parts(), _Held(held)
    for name, entry, read in _read(point):
        if entry.is_complete():
            _put(parts, name, read())
            parts.times |= {name: _STAGES[name].times(point)} if name in _STAGES else {}
        elif kept.has(name, entry):
            _put(parts, name, kept.figures(name))
            parts.times |= {name: kept.times.get(name, {})} if name in _STAGES else {}
        elif entry.path.is_dir():
            log.warning("the record is without what %s held, which is damaged: run the point again", entry.path)
    for stage in ALL_STAGES:
        if stage.name in parts.times:
            for name, entry in stage.parts(point).items():
                _tell(parts, name, entry, kept)
        elif stage.name == "export" and not stage.wanted(point):  # is of the same model, and says how it was made
            _keep(parts, stage.name, kept)
    if "profile" in parts.results:
        parts.results["profile"].setdefault("decoded", None)
    if "evaluate" not in parts.results:
        parts.measured.pop("evaluate", None)
    _tell_measured(parts, point, kept)
    return parts


def _read(point: Point) -> Iterator[tuple[str, Entry, Callable[[], Any]]]:
    """Every part by name, its entry, and what reads its figures."""
    for stage in ALL_STAGES:
        yield stage.name, stage.entry(point), partial(stage.result, point)
    yield DECODED, point.decoded_cost, lambda: read_json(point.decoded_cost.path / RESULT)["decoded"]
    yield "transcripts", point.transcripts, partial(speed, point)


def _put(parts: Parts, name: str, figures: Any) -> None:
    place, *inner, last = _PLACES.get(name, ("results", name))
    whole = getattr(parts, place)
    if all(step in whole for step in inner):  # an average without its profile is not told
        for step in inner:
            whole = whole[step]
        whole[last] = figures


def _tell_measured(parts: Parts, point: Point, kept: _Held) -> None:
    """Which times are there, which are not and why, and which are of another machine or were taken otherwise."""
    others = {}
    for name in ("latency", "measure"):
        own = _PLACES[name][-1]
        found = [*kept.others.get(own, []), *([kept.figures(name)] if kept.tells(name) else [])]
        mine = parts.measured.get(own)
        others[own] = [each for number, each in enumerate(found) if each not in (mine, *found[:number])]
    if "profile" in parts.results and parts.measured.setdefault("latency", None) is None:
        parts.measured["refused"] = {"latency": _ELSEWHERE}
    if point.refused:
        parts.measured["refused"] = {**parts.measured.get("refused", {}), **point.refused}
    if any(others.values()):
        parts.measured["others"] = {name: each for name, each in others.items() if each}


def _keep(parts: Parts, name: str, kept: _Held) -> None:
    """Takes over a result that the settings of this run do not ask for."""
    if kept.tells(name) and name in kept.entries:
        _put(parts, name, kept.figures(name))
        parts.times[name], parts.entries[name] = kept.times.get(name, {}), kept.entries[name]
        parts.made |= kept.places(name)


def _tell(parts: Parts, name: str, entry: Entry, kept: _Held) -> None:
    """Notes the entry of a part, and where it was made."""
    places = made(entry.path, name) if entry.path.is_dir() else {}
    if not any(places.values()) and kept.entries.get(name) == entry.fingerprint:
        places = kept.places(name)
    if places:
        parts.made |= places
        parts.entries[name] = entry.fingerprint


class _Held:
    def __init__(self, record: Record | None) -> None:
        self._record = {} if record is None else record.plain
        self._made = {} if record is None else separate(record.provenance)
        self.entries = {} if record is None else record.entries
        self.times = {} if record is None else record.times
        self.others = {} if record is None else record.measured.others

    def has(self, name: str, entry: Entry) -> bool:
        return self.entries.get(name) == entry.fingerprint and self.tells(name)

    def tells(self, name: str) -> bool:
        """Whether it holds figures under this name."""
        try:
            return self.figures(name) is not None
        except (KeyError, TypeError):
            return False

    def figures(self, name: str) -> Any:
        """Of a part. Raises KeyError."""
        figures: Any = self._record
        for step in _PLACES.get(name, ("results", name)):
            figures = figures[step]
        if name == "profile":
            return {key: value for key, value in figures.items() if key != "decoded"}
        return figures

    def places(self, name: str) -> dict[str, Made]:
        """Where a part was made, and what it has read."""
        own = {each: places for each, places in self._made.items() if each == name or each.startswith(f"{name}.")}
        return {name: [], **own}
