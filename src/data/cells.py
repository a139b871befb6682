"""What a cell of a corpus may hold: the one rule for manifests, parquet files, saved data sets and the hub's rows.

A reference is text. An id, a speaker or a session is text or a number. Audio is an encoded file, the path of one, or
samples with their rate. What cannot be read as that without a guess is an error, and never scored as something else.
"""

from __future__ import annotations

import io
import math
import os
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import soundfile

LONGEST_TEXT: Final = 500_000  # characters of a reference: some nine hours of speech
LONGEST_NAME: Final = 4_096  # characters of an id, speaker, session or path: the longest path of Linux
ABSENT: Final = object()  # in place of a value where an entry does not have the field

SPELLED_MISSING: Final = frozenset(  # what programs write: pandas, Python, SQL, R, Excel
    {"nan", "NaN", "<NA>", "NaT", "None", "null", "NULL", "NA", "N/A", "#N/A"}
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # those that are no white space
_QUOTE: Final = "Write what is spoken as text, in quotation marks; nothing (null) where nothing is"


class CellError(ValueError):
    """What is wrong with a cell, to be read after the column's name, and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def text(value: Any) -> str:
    """A reference; "" where it is null.

    Raises:
        CellError: it is no text, too long, or not valid Unicode.
    """
    return _string(value, LONGEST_TEXT, _QUOTE)


def own_text(value: Any) -> str:
    """A reference of a user's own data, who can say what is meant.

    Raises:
        CellError: as :func:`text`; also where it is what programs write for a missing value.
    """
    found = text(value)
    if found.strip() in SPELLED_MISSING:
        remedy = "Leave the cell empty (null) where there is no reference; write it otherwise where this was spoken"
        raise CellError(f"is {found!r}, which programs write for a missing value", remedy)
    return found


def name(value: Any) -> str:
    """An id, a speaker or a session; "" where it is missing: null, NaN (as text too) or blank.

    Raises:
        CellError: it is neither text nor a number, too long, or holds what no name does.
    """
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        value = int(value) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = _string(value, LONGEST_NAME, "Give it a text or a number")
    control = _CONTROL.search(found)
    if control is not None:
        raise CellError(f"is {_shown(found)}, which holds the control character {control[0]!r}", "Remove it")
    return "" if not found.strip() or found.strip() in SPELLED_MISSING else found


def audio_path(value: Any, folder: Path | None) -> Path | None:
    """The file that an audio cell names; None where it holds the sound itself, or nothing.

    A path is relative to ``folder``, where the table lies; where there is no such file, to the working directory. A
    published table has no ``folder``: what it names beside its sound is a file of those who made it.

    Raises:
        CellError: it is no audio, or there is no such file.
    """
    found = _sound(value)
    return _file(found, folder) if isinstance(found, str) else None


def encoded_audio(value: Any, folder: Path | None) -> bytes | None:
    """The encoded file of an audio cell, which may be empty; None where the cell holds none.

    Raises:
        CellError: it is no audio, or its file cannot be read.
    """
    found = _sound(value)
    if not isinstance(found, str):
        return found
    path = _file(found, folder)
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CellError(f"names {_shown(found)}, which cannot be read ({error.strerror})", "Check the file") from error


def _string(value: Any, longest: int, remedy: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str | bytes) and len(value) > longest:
        raise CellError(f"has {len(value):,} characters, more than {longest:,}", "Check what this cell holds")
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CellError(f"is {_shown(value)}, which is not UTF-8", "Save the table as UTF-8") from error
    if not isinstance(value, str):
        raise CellError(f"is {_shown(value)}, which is no text", remedy)
    if "\0" in value:
        raise CellError(f"is {_shown(value)}, which holds a NUL character", "Save the table as UTF-8")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"is {_shown(value)}, which is not valid Unicode (half a surrogate pair, {value[error.start]!r})"
        raise CellError(problem, "Remove it, or write the whole character in UTF-8") from error
    return str(value)


def _sound(value: Any) -> bytes | str | None:
    """The encoded file, or the path of one."""
    if isinstance(value, dict):
        known = [key for key in ("bytes", "array", "path") if key in value]
        if not known:
            problem = f"holds {', '.join(map(repr, value)) or 'nothing'}, but no bytes, path or array"
            raise CellError(problem, _AUDIO)
        held = next((key for key in known if value[key] is not None), None)
        if held == "array":
            return _wave(value["array"], value.get("sampling_rate"))
        value = None if held is None else value[held]
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list | tuple):
        raise CellError(f"is a list of {len(value)} samples without their rate", _AUDIO)
    if not isinstance(value, str):
        raise CellError(f"is {_shown(value)}, which is no audio", _AUDIO)
    return value or None


_AUDIO: Final = 'Give the path of an audio file, its bytes, or {"array": [...], "sampling_rate": ...}'


def _wave(array: Any, rate: Any) -> bytes:
    """A wav file of floats, so that samples of a table go the way of all others."""
    try:
        samples = np.asarray(array)
        is_wave = samples.ndim == 1 and (samples.dtype.kind == "f" or not samples.size)
    except ValueError:  # lists of unequal length
        is_wave = False
    if not is_wave:
        problem = f"has the array {_shown(array)}, which is no mono waveform of floats"
        raise CellError(problem, "Give one list of floats in [-1, 1], or the path of an audio file")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 2**31 or rate != int(rate):
        raise CellError(f"has sampling_rate {_shown(rate)}, which is no rate in Hz", _AUDIO)
    stream = io.BytesIO()
    soundfile.write(stream, samples.astype(np.float32), int(rate), format="WAV", subtype="FLOAT")
    return stream.getvalue()


def _file(written: str, folder: Path | None) -> Path | None:
    if folder is None:
        path = Path(written)
        return path if path.is_absolute() and _is(Path.is_file, path) else None
    if len(written) > LONGEST_NAME or "\0" in written:
        raise CellError(f"is {_shown(written)}, which is no path", _AUDIO)
    places = (base / reading for reading in _readings(written) for base in (folder, Path()))
    found = next((place for place in places if _is(Path.is_file, place)), None)
    if found is None:
        raise _absent(written, folder)
    if not os.access(found, os.R_OK):
        raise CellError(f"names {_shown(written)}, which may not be read", "Check the file's permissions")
    return found


def _absent(written: str, folder: Path) -> CellError:
    if "://" in written and not written.startswith("file:"):
        return CellError(f"is {_shown(written)}, which is no file on this machine", "Download it and name the file")
    if any(_is(Path.is_dir, base / reading) for reading in _readings(written) for base in (folder, Path())):
        return CellError(f"is {_shown(written)}, which is a folder", "Name a file")
    problem = f"is {_shown(written)}, and there is no such file in {folder}"
    return CellError(problem, "Paths are relative to that folder")


def _readings(written: str) -> Iterator[str]:
    """What a path may mean, the letter first: a file URL, backslashes, %20, and ~ for the home directory."""
    yield written
    plain = written.strip()
    if plain.startswith("file:"):
        try:
            plain = unquote(urlsplit(plain).path)
        except ValueError:  # no URL after all
            return
    plain = plain.replace("\\", "/")
    yield plain
    yield unquote(plain)
    yield os.path.expanduser(plain)  # noqa: PTH111 - which leaves the name of no user as it is


def _is(kind: Any, place: Path) -> bool:
    try:
        return bool(kind(place))
    except (OSError, ValueError):  # too long, not ours to see, or no path at all
        return False


def _shown(value: Any) -> str:
    """The start of a value, so that an error stays a sentence."""
    return reprlib.repr(value[:200] if isinstance(value, str | bytes) else value)
