"""A user's list of audio files: one JSON object a line, CSV with a header, or a parquet table that names files.

An entry has an audio file (its path, relative to the list) and a text, and where there are such, an id and a speaker.
A mistake is an error that names file and line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from src.data.parquet import open_parquet
from src.data.rows import AudioReader, check_columns
from src.errors import UserError

FIELD: Final = "dataset.root"
SUFFIXES: Final = (".jsonl", ".csv")

Entries = list[tuple[str, dict[str, Any]]]  # where each stands, e.g. "line 7", and its fields


class ManifestRows:
    """The entries of a manifest (:class:`src.data.rows.Rows`)."""

    def __init__(self, path: Path, audio: str) -> None:
        """Reads the list; ``audio`` names the column of paths.

        Raises:
            UserError: the list cannot be read, is empty, or an entry names no file.
        """
        read = {".jsonl": _json_lines, ".csv": _comma_separated, ".parquet": _table}[path.suffix]
        self._path = path
        self._entries = read(path)
        if not self._entries:
            raise UserError(FIELD, f"{path} has no entries", "Give it one entry an audio file")
        self.columns: Collection[str] = sorted({name for _, entry in self._entries for name in entry})
        check_columns(self.columns, [audio], str(path))
        self._audio = self.strings(audio)
        self._require_files()

    def __len__(self) -> int:
        return len(self._entries)

    def strings(self, column: str) -> list[str]:
        """The values of a field.

        Raises:
            UserError: an entry lacks it, or it is neither text nor a number.
        """
        return [self._string(where, entry, column) for where, entry in self._entries]

    def label(self, row: int) -> str:
        """The audio's path as the manifest has it."""
        return self._audio[row]

    def reader(self, column: str, wanted: Sequence[int]) -> AudioReader:  # noqa: ARG002 - any file is as near
        """Bytes of an entry's file."""
        return lambda row: self._file(row).read_bytes()

    def files(self, wanted: Sequence[int]) -> list[Path]:
        """The audio files of the entries."""
        return [self._file(row) for row in wanted]

    def _file(self, row: int) -> Path:
        return self._path.parent / Path(self._audio[row]).expanduser()

    def _string(self, where: str, entry: dict[str, Any], column: str) -> str:
        value = entry.get(column)
        if column not in entry:
            _refuse(self._path, where, f"it has no {column!r} (found: {', '.join(entry)})", "Give every entry one")
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            _refuse(self._path, where, f"{column} is {value!r}, which is no text", "Put it in quotation marks")
        return "" if value is None else str(value)

    def _require_files(self) -> None:
        absent = [row for row in range(len(self)) if not self._file(row).is_file()]
        if absent:
            more = f", nor those of {len(absent) - 1} other entries" if len(absent) > 1 else ""
            problem = f"there is no file {self._audio[absent[0]]!r} in {self._path.parent}{more}"
            _refuse(self._path, self._entries[absent[0]][0], problem, "Paths are relative to the manifest's folder")


def _json_lines(path: Path) -> Entries:
    entries: Entries = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            _refuse(path, where, f"this is not JSON ({error})", 'Write {"audio": "a.wav", "text": "some words"}')
        if not isinstance(entry, dict):
            _refuse(path, where, "this is no JSON object", 'Write {"audio": "a.wav", "text": "some words"}')
        entries.append((where, entry))
    return entries


def _comma_separated(path: Path) -> Entries:
    lines = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = next(lines, [])
        return [(f"line {lines.line_num}", _fields(path, lines.line_num, header, line)) for line in lines if line]
    except csv.Error as error:
        _refuse(path, f"line {lines.line_num}", f"this is not CSV ({error})", _CSV)


_CSV: Final = 'Separate fields by commas, put quotation marks around text with a comma in it, and double those inside "'


def _fields(path: Path, line: int, header: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    if len(values) != len(header):
        problem = f"it has {len(values)} fields, but the header has {len(header)} ({', '.join(header)})"
        _refuse(path, f"line {line}", problem, _CSV)
    return dict(zip(header, values, strict=True))


def _table(path: Path) -> Entries:
    table = open_parquet(path).read()
    return [(f"row {row}", entry) for row, entry in enumerate(table.to_pylist())]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        _refuse(path, f"line {line}", f"this is not UTF-8 ({error.reason})", "Save the file as UTF-8")
    except OSError as error:
        raise UserError(FIELD, f"{path} cannot be read ({error.strerror})", "Check its permissions") from error


def _refuse(path: Path, where: str, problem: str, remedy: str) -> NoReturn:
    raise UserError(FIELD, f"{path}, {where}: {problem}", remedy)


def manifests(folder: Path) -> Iterator[Path]:
    """The files of a folder that may be manifests."""
    return (path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file())
