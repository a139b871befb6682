"""What a corpus is to the loader, wherever it lives: ids and texts at once, audio row by row when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from src.data import cells
from src.data.cells import CellError
from src.errors import UserError, did_you_mean

AudioReader = Callable[[int], bytes | None]


class Rows(Protocol):
    """One split. Row numbers count from 0 in the order of the data set."""

    @property
    def columns(self) -> Collection[str]:
        """What a row holds."""

    def __len__(self) -> int: ...

    def values(self, column: str) -> Sequence[Any]:
        """What a column holds, one value a row, as it is stored; :func:`texts` and :func:`names` make text of it."""

    def where(self, row: int) -> str:
        """File and line or row, for errors."""

    def label(self, row: int) -> str:
        """What a row is called where the corpus has no ids."""

    def audio_names(self) -> Sequence[str | None]:
        """What each row calls the file of its audio, whether it holds the sound or not; None where it does not tell."""

    def reader(self, wanted: Sequence[int]) -> AudioReader:
        """Reads the encoded audio of single rows among the ``wanted``; None where a row holds no bytes.

        It may be called from several threads, and is fast where neighbouring rows are asked for together.
        """

    def files(self, wanted: Sequence[int]) -> list[Path]:
        """Files beside the data set that hold the audio of the ``wanted`` rows; none where the rows hold it.

        Raises:
            UserError: a row names a file that is not there.
        """


def texts(rows: Rows, column: str, rule: Callable[[Any], str] = cells.text) -> list[str]:
    """The references, "" where one is null.

    Raises:
        UserError: a cell is no text by the ``rule``; names file and row.
    """
    return [_read(rows, row, column, rule, value) for row, value in enumerate(rows.values(column))]


def names(rows: Rows, column: str) -> list[str]:
    """Speakers, sessions or splits, "" where one is missing.

    Raises:
        UserError: a cell is neither text nor a number; names file and row.
    """
    found = enumerate(rows.values(column))
    return ["" if value is cells.ABSENT else _read(rows, row, column, cells.name, value) for row, value in found]


def ids(rows: Rows, column: str | None) -> list[str]:
    """What the rows are called, each otherwise: by the ``column``, or by their audio where there is none.

    Raises:
        UserError: a row has no id, or one that is neither text nor a number.
    """
    if column is None or column not in rows.columns:
        labels = map(rows.label, range(len(rows)))
        return unique([_read(rows, row, "audio", cells.name, label) or label for row, label in enumerate(labels)])
    found = names(rows, column)
    if "" in found:
        problem = f"{rows.where(found.index(''))}: it has no {column!r}"
        raise UserError("dataset", problem, "Give every row one, or none with dataset.columns.id=null")
    return unique(found)


def _read(rows: Rows, row: int, column: str, rule: Callable[[Any], str], value: Any) -> str:
    if value is cells.ABSENT:
        raise UserError("dataset", f"{rows.where(row)}: it has no {column!r}", "Give every entry one")
    try:
        return rule(value)
    except CellError as error:
        raise refusal(rows.where(row), column, error) from None


def audio(rows: Rows, column: str, folder: Path | None, row: int, value: Any) -> bytes | None:
    """The encoded file of an audio cell. Raises a :class:`UserError` that names the row where it is none."""
    try:
        return cells.encoded_audio(value, folder)
    except CellError as error:
        raise refusal(rows.where(row), column, error) from None


def audio_files(rows: Rows, column: str, folder: Path | None, values: Iterable[tuple[int, Any]]) -> dict[int, Path]:
    """The files that the audio cells of some rows name, by row.

    Raises:
        UserError: a cell is no audio, or its file is not there; names the first such row.
    """
    found: dict[int, Path] = {}
    wrong: list[UserError] = []
    for row, value in values:
        try:
            path = cells.audio_path(value, folder)
        except CellError as error:
            wrong.append(refusal(rows.where(row), column, error))
            continue
        if path is not None:
            found[row] = path
    if wrong:
        more = f" (and {len(wrong) - 1} more rows are wrong)" if len(wrong) > 1 else ""
        raise UserError(wrong[0].field, wrong[0].problem + more, wrong[0].remedy)
    return found


def numbered(row: int) -> str:
    """What a row is called that has no other name."""
    return f"row-{row:06d}"


def refusal(where: str, column: str, error: CellError) -> UserError:
    return UserError("dataset", f"{where}: {column} {error.problem}", error.remedy)


def check_columns(found: Collection[str], needed: Sequence[str], where: str) -> None:
    """Raises a :class:`UserError` that names the columns ``where`` lacks, or has twice."""
    missing = [column for column in needed if column not in found]
    if missing:
        problem = f"{where} has no column {', '.join(missing)} (found: {', '.join(sorted(found))})"
        hint = did_you_mean(missing[0], found)
        remedy = f"Say which column it is with dataset.columns.text=NAME (audio, id, speaker likewise). {hint}"
        raise UserError("dataset", problem, remedy)
    twice = [column for column, times in Counter(found).items() if times > 1 and column in needed]
    if twice:
        raise UserError("dataset", f"{where} has the column {twice[0]} twice", "Remove or rename one of them")


def unique(given: Sequence[str]) -> list[str]:
    """The ids, with #2, #3 ... added where one occurs again, so that transcripts can be paired by id.

    A name that is made so is none of the given ones.
    """
    taken, last = set(given), dict[str, int]()
    found = []
    for name in given:
        number = last.get(name, 0) + 1
        made = name
        while number > 1 and (made := f"{name}#{number}") in taken:
            number += 1
        last[name] = number
        taken.add(made)
        found.append(made)
    return found
