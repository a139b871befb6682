"""What a corpus is to the loader, wherever it lives: ids and texts at once, audio only for the rows asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from src.errors import UserError

COLUMNS: Final = ("id", "text", "audio")


class Rows(Protocol):
    """One split. Row numbers count from 0 in the order of the data set."""

    def strings(self, column: str) -> list[str]:
        """The ``id`` or ``text`` of every row; "" where it is null."""

    def audio(self, wanted: Sequence[int]) -> dict[int, bytes | None]:
        """Encoded audio of the ``wanted`` rows by row number; None where the row holds no bytes."""


def check_columns(found: Iterable[str], where: str) -> None:
    """Raises a :class:`UserError` that names the columns ``where`` lacks."""
    have = set(found)
    missing = [column for column in COLUMNS if column not in have]
    if missing:
        problem = f"{where} has no column {', '.join(missing)} (found: {', '.join(sorted(have))})"
        raise UserError("dataset", problem, f"Test sets need the columns {', '.join(COLUMNS)}")


def unique(ids: Sequence[str]) -> list[str]:
    """The ids, with #2, #3 ... added where one occurs again, so that transcripts can be paired by id."""
    seen: Counter[str] = Counter()
    names = []
    for name in ids:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names
