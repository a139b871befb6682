"""SHA-256 of files, of the code, and of settings."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from src.project import ROOT

_TICK: Final = 20_000_000  # nanoseconds; file systems tell times in steps of up to 10 ms
_known: dict[tuple[int, ...], str] = {}  # digests of this process by the state of the file


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """The same, read only once in this process as long as the file's state stays: inode, size and times.

    A file that is moved keeps its state.
    """
    state = path.stat()
    if time.time_ns() - state.st_ctime_ns < _TICK:  # it could change and look the same
        return sha256_file(path)
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if key not in _known:
        _known[key] = sha256_file(path)
    return _known[key]


@cache
def source() -> str:
    """Digest of this package's source: a result may depend on any of it."""
    whole = hashlib.sha256()
    for file in sorted((ROOT / "src").rglob("*.py")):
        whole.update(f"{file.relative_to(ROOT)} {sha256_file(file)}\n".encode())
    return whole.hexdigest()


def fingerprint(key: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of ``key`` as canonical JSON."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
