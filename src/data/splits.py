"""Which split files are of, by their names, and rows of one split where a column tells."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from src.data.rows import AudioReader, Rows, names
from src.errors import UserError, did_you_mean

_SHARD: Final = re.compile(r"(?:[-_.]\d+)(?:-of-\d+)?(?:-[0-9a-f]{16})?$")
_LIST: Final = re.compile(r"^(?:manifest|metadata|data|list)[-_.]|[-_.](?:manifest|metadata|data|list)$")
_COUNTED: Final = re.compile(r"-\d+-of-\d+")
_WORD: Final = re.compile(r"[^-_.]+")
_USUAL: Final = ("train", "training", "test", "testing", "dev", "development", "val", "valid", "validation", "eval")


def split_name(file: Path) -> str:
    """The split in a file's name: ``test`` of ``test-00000-of-00001.parquet``, ``corpus_test.csv``, ``test_list.csv``.

    A file that is only a number is of the split that its folder is called, as in the hub's own conversions.
    """
    stem = file.stem
    name = file.parent.name if stem.isdecimal() else _LIST.sub("", _SHARD.sub("", stem) or stem)
    if _COUNTED.search(stem):
        return name
    usual = next((word for word in _WORD.finditer(name) if word[0].lower() in _USUAL), None)
    return name[usual.start() :] if usual else name  # what stands before it is the corpus's name


def tells_split(file: Path) -> bool:
    """Whether a name is that of a split and not any name: a usual one is a word of it, or it counts its shards."""
    return is_usual(split_name(file)) or _COUNTED.search(file.stem) is not None


def is_usual(name: str) -> bool:
    """Whether a name starts as those of splits do."""
    return next(iter(_WORD.findall(name)), "").lower() in _USUAL


def of_split(files: Sequence[Path], split: str | None, where: Path) -> list[Path] | None:
    """The files of a split, or all of those that are of one; None where their names tell none and one is asked for.

    Raises:
        UserError: there is no such split, or several to choose from.
    """
    told = {split_name(file) for file in files if tells_split(file)}
    others = [file for file in files if not tells_split(file)]
    if split is None:
        if len(told) + bool(others) > 1 and told:
            several(where, [split_name(file) for file in files])
        return list(files)
    chosen = [file for file in files if split in (split_name(file), file.stem)]
    if not chosen and told:
        no_split(where, split, [split_name(file) for file in files])
    return chosen or None


def several(where: Path, found: Iterable[str]) -> NoReturn:
    """Raises the :class:`UserError` of a corpus with several splits of which none was chosen."""
    remedy = f"{did_you_mean('', set(found))}. Choose one with dataset.split=NAME"
    raise UserError("dataset.split", f"{where} has several splits", remedy)


def no_split(where: Path, split: str, found: Collection[str]) -> NoReturn:
    """Raises the :class:`UserError` of a split that is not there."""
    remedy = did_you_mean(split, set(found)) if found else "Use dataset.split=null, or name the files of this split"
    problem = f"{where} has no split {split!r}" + ("" if found else ", as nothing in it tells of splits")
    raise UserError("dataset.split", problem, remedy)


def rows_of_split(rows: Rows, column: str | None, split: str | None, where: Path, whole: Collection[str]) -> Rows:
    """The rows whose ``column`` says ``split``; all where none is asked for and they are of one.

    ``whole`` names the splits that are there as a whole, for the error of one that is not.

    Raises:
        UserError: there is no such split, or several to choose from.
    """
    if column is None or column not in rows.columns:
        if split is not None:
            no_split(where, split, whole)
        return rows
    told = names(rows, column)
    if split is None:
        if len(set(told)) > 1:
            several(where, filter(None, told))
        return rows
    if split not in told:
        no_split(where, split, set(filter(None, told)))
    return _SplitRows(rows, [row for row, name in enumerate(told) if name == split])


class _SplitRows:
    """Some rows of others (:class:`src.data.rows.Rows`)."""

    def __init__(self, rows: Rows, chosen: Sequence[int]) -> None:
        self._rows, self._chosen = rows, chosen
        self.columns = rows.columns

    def __len__(self) -> int:
        return len(self._chosen)

    def values(self, column: str) -> Sequence[Any]:
        values = self._rows.values(column)
        return [values[row] for row in self._chosen]

    def where(self, row: int) -> str:
        return self._rows.where(self._chosen[row])

    def label(self, row: int) -> str:
        return self._rows.label(self._chosen[row])

    def audio_names(self) -> Sequence[str | None]:
        found = self._rows.audio_names()
        return [found[row] for row in self._chosen]

    def reader(self, wanted: Sequence[int]) -> AudioReader:
        read = self._rows.reader([self._chosen[row] for row in wanted])
        return lambda row: read(self._chosen[row])

    def files(self, wanted: Sequence[int]) -> list[Path]:
        return self._rows.files([self._chosen[row] for row in wanted])
