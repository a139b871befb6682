"""Fingerprinted results on disk: written atomically, verified when read, built once.

An entry is the folder ``<root>/<stage>/<fingerprint>/``. Its fingerprint hashes the settings that the result depends on
and, unless a time was taken, nothing about where it ran. The entry's files are built in ``<fingerprint>.partial/``
under a lock, hashed into a manifest, flushed, and moved into place by one rename: a half-written entry is never read.
A build that was killed finds its ``*.progress`` files again and may resume from them; whatever else it left behind is
removed first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from src.digest import sha256_file
from src.errors import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"  # SHA-256 of every other file
KEY = "key.json"  # the settings that name the entry
PROGRESS_SUFFIX = ".progress"  # files a build keeps to resume from; not part of the finished entry


def fingerprint(key: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of ``key`` as canonical JSON."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomic(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Atomic, indented JSON in a fixed key order."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Entry:
    """One result: where it lives and the settings that name it."""

    root: Path
    stage: str
    key: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """See :func:`fingerprint`."""
        return fingerprint(self.key)

    @property
    def path(self) -> Path:
        """Folder of the finished entry."""
        return self.root / self.stage / self.fingerprint

    def is_complete(self) -> bool:
        """Whether the entry is there and every file matches its checksum; damage is logged."""
        found = damage(self.path)
        if found and self.path.is_dir():
            log.warning("%s entry %s is damaged (%s): it will be rebuilt", self.stage, self.path, found)
        return found is None

    def obtain(self, build: Callable[[Path], None], *, anew: bool = False) -> Path:
        """The entry's folder, built by ``build(folder)`` if it is absent or damaged, or in any case ``anew``.

        Where another process is building the same entry, this one waits for it.
        """
        if not anew and self.is_complete():
            return self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.with_suffix(".lock"), self.stage):
            if anew or damage(self.path) is not None:  # else another process has built it by now
                self._build(build)
        return self.path

    def _build(self, build: Callable[[Path], None]) -> None:
        partial = self.path.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        _clear(partial, progress=False)  # what an earlier attempt left is not this one's result
        build(partial)
        _clear(partial, progress=True)
        write_json(partial / KEY, dict(self.key))
        files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST)
        digests = {str(path.relative_to(partial)): sha256_file(path) for path in files}
        write_json(partial / MANIFEST, digests)
        for path in files:
            _flush(path)
        if self.path.exists():  # damaged, or to be replaced
            shutil.rmtree(self.path)
        partial.replace(self.path)
        _flush(self.path.parent)


def damage(folder: Path) -> str | None:
    """What is wrong with the entry in ``folder``, in words; None where every file matches its checksum."""
    try:
        digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if KEY not in digests:
            return f"{MANIFEST} does not list {KEY}"
        for name, digest in digests.items():
            if sha256_file(folder / name) != digest:
                return f"checksum of {name} differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"unreadable: {error}"
    return None


def _clear(folder: Path, *, progress: bool) -> None:
    """Removes the files to resume from, or everything else."""
    for path in folder.iterdir():
        if path.name.endswith(PROGRESS_SUFFIX) is progress:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _locked(path: Path, stage: str) -> Iterator[None]:
    """Holds a file lock, and says so when it has to wait for it. The system releases it when its holder dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that is making the same %s entry", stage)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Store:
    """All entries below one folder."""

    root: Path

    def entry(self, stage: str, key: Mapping[str, Any]) -> Entry:
        """The entry of ``stage`` named by ``key``, whether or not it exists yet."""
        return Entry(self.root, stage, key)


def open_store(output_dir: Path) -> Store:
    """The store below ``output_dir``, which must be writable.

    Raises:
        UserError: the folder cannot be made or written.
    """
    root = output_dir / "cache"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        remedy = "Choose a writable folder with output_dir=/path"
        raise UserError("output_dir", f"{str(output_dir)!r} cannot be written ({error.strerror})", remedy) from None
    return Store(root)
