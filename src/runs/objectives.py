"""The figures of a point that a sweeper minimizes; lower is better for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PLACES = {  # where a record holds them
    "wer": ("evaluate", "wer"),
    "disk_bytes": ("quantize", "disk_bytes"),
    "memory_io_bytes": ("profile", "memory_io_bytes"),
    "bops": ("profile", "bops"),
}


def objectives(record: dict[str, Any], names: Sequence[str]) -> float | tuple[float | None, ...] | None:
    """One number for one name, else a tuple; None for what the chosen stages did not make."""
    found = tuple(_figure(record, name) for name in names)
    return found[0] if len(found) == 1 else found


def _figure(record: dict[str, Any], name: str) -> float | None:
    stage, figure = PLACES[name]
    value = record["results"].get(stage, {}).get(figure)
    return None if value is None else float(value)
