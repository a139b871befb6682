"""The figures of a point that a sweeper searches by."""

from __future__ import annotations

from collections.abc import Sequence

from src.metrics import METRICS
from src.records import Record


def objectives(record: Record, names: Sequence[str]) -> float | tuple[float | None, ...] | None:
    """One number for one name, else a tuple; None for what the chosen stages did not make."""
    figures = [record.results.figure(METRICS[name]) for name in names]
    found = tuple(None if figure is None else float(figure) for figure in figures)
    return found[0] if len(found) == 1 else found
