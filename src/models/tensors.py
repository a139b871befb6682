"""What safetensors files say they hold, from their headers: no tensor is read, and no torch is needed.

The format: 8 bytes with the length of a JSON header, the header, and the tensors' bytes, one behind the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Final

from src.models.files import COMPLETE, refuse_pointer, wrong

FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LONGEST_HEADER: Final = 100_000_000  # the format's own bound
_OTHERS: Final = {
    b"PK\x03\x04": "a pickle of PyTorch",
    b"\x80": "a pickle",
    b"GGUF": "a GGUF file",
    b"lmgg": "a GGML file",
}
_CHUNK: Final = 1 << 24


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its type as the format names it, its shape, and where its bytes begin and end."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def stored_tensors(files: Sequence[Path]) -> dict[str, Stored]:
    """All tensors of ``files`` by name.

    Raises:
        UserError: a file is no safetensors file, or is cut off, or two hold a tensor of the same name.
    """
    found: dict[str, Stored] = {}
    for file in files:
        state = file.stat()
        for name, tensor in _header(file, state.st_size, state.st_mtime_ns)[0].items():
            if name in found:
                raise wrong(f"{name} is both in {found[name].file} and in {file.name}", COMPLETE)
            found[name] = tensor
    return found


def metadata(file: Path) -> Mapping[str, str]:
    """What the writer of a file said of it. Raises UserError, as :func:`stored_tensors`."""
    state = file.stat()
    return _header(file, state.st_size, state.st_mtime_ns)[1]


def equal(a: Stored, b: Stored) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with a.file.open("rb") as one, b.file.open("rb") as other:
        one.seek(a.begin)
        other.seek(b.begin)
        for start in range(a.begin, a.end, _CHUNK):
            length = min(_CHUNK, a.end - start)
            if one.read(length) != other.read(length):
                return False
    return True


@lru_cache(maxsize=64)
def _header(file: Path, size: int, _modified: int) -> tuple[Mapping[str, Stored], Mapping[str, str]]:
    try:
        with file.open("rb") as opened:
            beginning = opened.read(64)
            _refuse_others(file, beginning)
            length = int.from_bytes(beginning[:8], "little")
            opened.seek(8)
            header = opened.read(min(length, size))
    except OSError as error:
        raise wrong(f"{file} cannot be read ({error.strerror})", COMPLETE) from error
    if len(header) < length:
        raise _cut(file, size, 8 + length)
    try:
        described = json.loads(header)
        tensors = {name: _tensor(file, each, 8 + length) for name, each in described.items() if name != "__metadata__"}
        told = dict(described.get("__metadata__") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise wrong(f"{file} has a header that is no safetensors header", "Copy the file again") from error
    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end or prod(tensor.shape) * _BYTES.get(tensor.dtype, 0) not in (
            0,
            tensor.end - tensor.begin,
        ):
            raise wrong(f"{file} has a header that is not right about {name}", "Copy the file again")
        end = tensor.end
    if size < end:
        raise _cut(file, size, end)
    if size > end:
        raise wrong(f"{file} has {size} bytes, {size - end} more than its tensors", "Copy the file again")
    return tensors, told


def _tensor(file: Path, described: Mapping[str, Any], start: int) -> Stored:
    begin, end = described["data_offsets"]
    shape = tuple(described["shape"])
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or end < begin:
        raise ValueError("negative or no integer")
    return Stored(file, str(described["dtype"]), shape, start + begin, start + end)


def _refuse_others(file: Path, beginning: bytes) -> None:
    """Checks what the file begins with. Raises UserError."""
    refuse_pointer(file, beginning)
    for magic, kind in _OTHERS.items():
        if beginning.startswith(magic) and beginning[8:9] != b"{":
            raise wrong(f"{file} is {kind} under the name of safetensors", COMPLETE)
    if len(beginning) < 9:
        raise _cut(file, len(beginning), 9)
    if beginning[8:9] != b"{" or int.from_bytes(beginning[:8], "little") > _LONGEST_HEADER:
        raise wrong(f"{file} is no safetensors file: it begins with {beginning[:16]!r}", "Copy the file again")


def _cut(file: Path, size: int, expected: int) -> Exception:
    return wrong(f"{file} is cut off: it has {size} bytes of at least {expected}", "Copy or download the file again")
