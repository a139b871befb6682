"""JSON lines that outlive the process that writes them, so that a run that was killed goes on after the last of them.

Every line begins with a checksum of its text and of all lines before it: a line that was edited, damaged or moved does
not fit, nor does what follows it. The first line says what the others depend on (their basis) beyond the fingerprint of
the entry they are made for: how the work is cut into lines, and by which code. What does not fit is dropped, with a
word in the log, and made again. A last line that a kill cut short is dropped without one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from src.storage.digest import source

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "numpy")
_DIGITS = 32  # of a checksum


class Journal:
    """What was appended so far, and how more is.

    Args:
        path: the file; made if need be.
        basis: plain data that the lines depend on, such as the :func:`program`; a file of another is begun anew.

    Attributes:
        values: one a line, in order.
    """

    def __init__(self, path: Path, basis: Mapping[str, Any]) -> None:
        self._path = path
        self.values: list[Any] = []
        self._lines: list[_Line] = []
        make_file(path)
        basis = json.loads(json.dumps(dict(basis)))
        lines, problem = _fitting(path.read_bytes())
        if lines and lines[0].value != basis:
            lines, problem = [], _difference(lines[0].value, basis)
        if problem:
            kept = f"the first {len(lines) - 1} lines are kept" if len(lines) > 1 else "nothing of it is used"
            log.warning("resume file %s %s: %s, the rest is made again", path, problem, kept)
        os.truncate(path, lines[-1].end if lines else 0)
        self._lines = lines
        if not lines:
            self._write(basis)
        self.values = [line.value for line in self._lines[1:]]

    def append(self, value: Any) -> None:
        """Writes ``value`` (plain data) as one line and flushes it to the disk."""
        self._write(value)
        self.values.append(self._lines[-1].value)

    def keep(self, count: int) -> None:
        """Drops all but the first ``count`` values."""
        del self._lines[count + 1 :], self.values[count:]
        os.truncate(self._path, self._lines[-1].end)

    def _write(self, value: Any) -> None:
        text = json.dumps(value).encode()
        before = self._lines[-1] if self._lines else _START
        checksum = _checksum(before.checksum, text)
        line = checksum + b" " + text + b"\n"
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._lines.append(_Line(json.loads(text), checksum, before.end + len(line)))


def values(path: Path) -> list[Any]:
    """The values of the lines that fit, whatever their basis; the file is only read."""
    return [line.value for line in _fitting(path.read_bytes())[0][1:]]


@dataclass(frozen=True)
class _Line:
    """A value, the checksum of the text so far, and where the line ends in the file."""

    value: Any
    checksum: bytes
    end: int


_START = _Line(None, b"", 0)


def _checksum(before: bytes, text: bytes) -> bytes:
    return hashlib.sha256(before + text).hexdigest()[:_DIGITS].encode()


def _fitting(content: bytes) -> tuple[list[_Line], str | None]:
    """The lines up to the first that does not fit, and what is wrong with that, in words."""
    lines: list[_Line] = []
    before = _START
    whole, _, _ = content.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
        checksum, _, text = line.partition(b" ")
        if checksum != _checksum(before.checksum, text):
            return lines, f"does not fit its checksum in line {number}"
        before = _Line(json.loads(text), checksum, before.end + len(line) + 1)
        lines.append(before)
    return lines, None


def _difference(found: Any, basis: Mapping[str, Any]) -> str:
    """What was different when a journal was begun, in words."""
    if not isinstance(found, dict):
        return "does not say what it depends on"
    keys = [key for key in {**basis, **found} if found.get(key) != basis.get(key)]
    told = [
        f"{key} ({found[key]}, now {basis[key]})" if _short(found.get(key)) and _short(basis.get(key)) else key
        for key in keys
    ]
    return f"was begun with other {', '.join(told)}"


def _short(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) < _DIGITS)


def make_file(path: Path) -> None:
    """An empty file where there is none, or one that cannot be read, or something else."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        path.unlink(missing_ok=True)
    path.touch()


def digest(value: Any) -> str:
    """Of plain data that is too long for a basis."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGITS]


@cache
def program() -> dict[str, str]:
    """The code that runs, and the packages that compute."""
    return {"code": source()[:_DIGITS], **{name: version(name) for name in _PACKAGES}}
