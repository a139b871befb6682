"""All stored results that a point's record stands on, whether or not a run has to read them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from src.runs.composite_record import mean_entry
from src.stages import ALL_STAGES
from src.stages.point import Point
from src.storage.store import Entry


def foundation(points: Sequence[Point]) -> list[Entry]:
    """The entries that are there, each once: of every stage, of the fp baseline, of the clips and of what was timed."""
    possible = [mean_entry(points), *(entry for point in points for entry in _entries(point))]
    found = {entry.path: entry for entry in possible if entry.path.is_dir()}
    return list(found.values())


def _entries(point: Point) -> Iterator[Entry]:
    yield point.statistics("gram")
    for stage in ALL_STAGES:
        yield from stage.parts(point).values()
