"""A race on the sandbox that takes seconds, for three megabytes: 8 bits take more, 2 bits cost too many words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.records import RACES, Entrant, Race, read_race

FIELD: tuple[str, ...] = (
    *("model=sandbox_moonshine", "method=rtn", "wbits=2,4,8", "scope=everything", "group_size=-1", "dataset.limit=12"),
    *("hydra/sweeper=fit", "hydra.sweeper.clips=[6]", "hydra.sweeper.candidates=[]"),
)
BUDGET = "hydra.sweeper.megabytes=3"


def arguments(outputs: Path, *more: str) -> list[str]:
    """Of ``src.main``; what is logged goes nowhere."""
    return ["-m", *FIELD, "tracking=none", f"output_dir={outputs}", *more]


def told(outputs: Path) -> Race:
    """What the last race told."""
    return read_race(max((outputs / RACES).glob("*.json"), key=lambda path: path.stat().st_mtime_ns))


def candidates(outputs: Path) -> dict[str, Entrant]:
    """Of the last race, by what makes them."""
    return {each.name: each for each in told(outputs).candidates}


def lasting(outputs: Path) -> dict[str, Any]:
    """Files of all races by name, as bytes."""
    return {file.name: file.read_bytes() for file in (outputs / RACES).glob("*.json")}
