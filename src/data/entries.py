"""The entries of a manifest, however it was written: JSON lines or one JSON list, CSV with any usual separator."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from src.errors import UserError

Entries = list[tuple[str, dict[str, Any]]]  # where each stands, e.g. "line 7", and its fields

_SEPARATORS: Final = ",;\t|"
_DIGITS: Final = 4_000  # of a number in JSON; Python converts no longer ones
_JSON: Final = 'Write {"audio": "a.wav", "text": "some words"}'
_CSV: Final = 'Separate fields by commas, put quotation marks around text with a comma in it, and double those inside "'
_MARKS: Final = (  # the first bytes of a file that is not UTF-8, longest first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_entries(path: Path, audio: str) -> Entries:
    """The entries of a ``.csv`` or ``.tsv`` file, or of any other as JSON; ``audio`` is a column it must have.

    Raises:
        UserError: it cannot be read; names the line.
    """
    text = _text(path)
    return _separated(path, text, audio) if path.suffix.lower() in (".csv", ".tsv") else _json(path, text)


def _json(path: Path, text: str) -> Entries:
    whole = _list(path, text) if text.lstrip().startswith("[") else None
    if whole is not None:
        return [(f"entry {number}", entry) for number, entry in enumerate(whole, start=1)]
    entries: Entries = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            entry = _loads(line)
        except ValueError as error:
            _refuse(path, where, f"this is not JSON ({error})", _JSON)
        if not isinstance(entry, dict):
            _refuse(path, where, "this is no JSON object", _JSON)
        entries.append((where, entry))
    return entries


def _list(path: Path, text: str) -> list[dict[str, Any]] | None:
    """The objects of a file that is one JSON list; None where its lines are something of their own."""
    try:
        found = _loads(text)
    except json.JSONDecodeError as error:
        if error.lineno > 1 and error.msg != "Extra data":  # behind the end of the list
            _refuse(path, f"line {error.lineno}", f"this is not JSON ({error.msg})", _JSON)
        return None
    except ValueError:
        return None
    return found if all(isinstance(entry, dict) for entry in found) else None


def _loads(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("brackets in brackets without an end") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has {twice!r} twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _separated(path: Path, text: str, audio: str) -> Entries:
    """Fields by the separator that makes ``audio`` one of the header's; quotation marks are text between tabs."""
    csv.field_size_limit(sys.maxsize)  # of the process: how long a cell may be is said in src.data.cells
    separator = _separator(text, audio)
    lines = _lines(text, separator)
    try:
        first: list[str] = next((names for names in lines if names), [])
        header = [_unquoted(name.strip()) if separator == "\t" else name.strip() for name in first]
        twice = [name for name, times in Counter(header).items() if times > 1 and name]
        if twice:
            _refuse(
                path, f"line {lines.line_num}", f"the header has {twice[0]!r} twice", "Rename or remove one of them"
            )
        return list(_filled(path, lines, header, audio, separator == "\t"))
    except csv.Error as error:
        _refuse(path, f"line {lines.line_num}", f"this is not CSV ({error})", _CSV)


def _filled(
    path: Path, lines: Any, header: Sequence[str], audio: str, tabs: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    for values in lines:
        if not any(values):
            continue
        where = f"line {lines.line_num}"
        if len(values) != len(header):
            problem = f"it has {len(values)} fields, but the header has {len(header)} ({', '.join(header)})"
            _refuse(path, where, problem, _CSV)
        entry = dict(zip(header, map(_unquoted, values) if tabs else values, strict=True))
        if _swallows(entry, audio):
            problem = "a quotation mark is closed lines after it was opened, with other entries between"
            _refuse(path, where, problem, _CSV)
        yield where, entry


def _swallows(entry: dict[str, str], audio: str) -> bool:
    """Whether a field of several lines holds another file of the kind of this entry's."""
    suffix = Path(entry.get(audio, "")).suffix
    lines = (line for value in entry.values() if "\n" in value for line in value.split("\n")[1:])
    return bool(suffix) and any(re.search(rf"{re.escape(suffix)}(?!\w)", line) for line in lines)


def _separator(text: str, audio: str) -> str:
    header = text.lstrip("\r\n").partition("\n")[0]
    found: dict[str, list[str]] = {
        separator: next(_lines(header, separator, strict=False), []) for separator in _SEPARATORS
    }
    named = (separator for separator, names in found.items() if audio in map(str.strip, map(_unquoted, names)))
    return next(named, ",")


def _lines(text: str, separator: str, strict: bool = True) -> Any:
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    content = io.StringIO(text, newline="")
    return csv.reader(content, delimiter=separator, quoting=quoting, strict=strict, skipinitialspace=True)


def _unquoted(value: str) -> str:
    """A field between tabs without the quotation marks that spreadsheets put around it."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('""', '"')
    return value


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError("dataset.root", f"{path} cannot be read ({error.strerror})", "Check its permissions") from error
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        _refuse(path, f"line {line}", f"this is not {encoding.removesuffix('-sig').upper()} ({error.reason})", _UTF8)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        _refuse(path, f"line {line}", "it holds a NUL character, so that it is no text in UTF-8", _UTF8)
    return text


_UTF8: Final = "Save the file as UTF-8"


def _refuse(path: Path, where: str, problem: str, remedy: str) -> NoReturn:
    raise UserError("dataset.root", f"{path}, {where}: {problem}", remedy)
