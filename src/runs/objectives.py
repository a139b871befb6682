"""The figures of a point that a sweeper searches by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.metrics import METRICS


def objectives(record: dict[str, Any], names: Sequence[str]) -> float | tuple[float | None, ...] | None:
    """One number for one name, else a tuple; None for what the chosen stages did not make."""
    figures = [METRICS[name].within(record["results"]) for name in names]
    found = tuple(None if figure is None else float(figure) for figure in figures)
    return found[0] if len(found) == 1 else found
