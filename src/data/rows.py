"""What a corpus is to the loader, wherever it lives: ids and texts at once, audio row by row when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from src.errors import UserError, did_you_mean

AudioReader = Callable[[int], bytes | None]


class Rows(Protocol):
    """One split. Row numbers count from 0 in the order of the data set."""

    @property
    def columns(self) -> Collection[str]:
        """What a row holds."""

    def __len__(self) -> int: ...

    def strings(self, column: str) -> list[str]:
        """The values of a text column, one a row; "" where it is null."""

    def label(self, row: int) -> str:
        """What a row is called where the corpus has no ids."""

    def reader(self, column: str, wanted: Sequence[int]) -> AudioReader:
        """Reads the encoded audio of single rows among the ``wanted``; None where a row holds no bytes.

        It may be called from several threads, and is fast where neighbouring rows are asked for together.
        """

    def files(self, wanted: Sequence[int]) -> list[Path]:
        """Files beside the data set that hold the audio of the ``wanted`` rows; none where the rows hold it."""


def check_columns(found: Collection[str], needed: Sequence[str], where: str) -> None:
    """Raises a :class:`UserError` that names the columns ``where`` lacks."""
    missing = [column for column in needed if column not in found]
    if missing:
        problem = f"{where} has no column {', '.join(missing)} (found: {', '.join(sorted(found))})"
        hint = did_you_mean(missing[0], found)
        remedy = f"Say which column it is with dataset.columns.text=NAME (audio, id, speaker likewise). {hint}"
        raise UserError("dataset", problem, remedy)


def unique(ids: Sequence[str]) -> list[str]:
    """The ids, with #2, #3 ... added where one occurs again, so that transcripts can be paired by id."""
    seen: Counter[str] = Counter()
    names = []
    for name in ids:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names
