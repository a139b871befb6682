"""Fingerprinted results on disk: written atomically, verified when read, built once.

An entry is the folder ``<root>/<stage>/<fingerprint>/``. Its fingerprint hashes the settings that the result depends on
and nothing about where it ran. The entry's files are built in ``<fingerprint>.partial/`` under a lock, hashed into a
manifest, flushed, and moved into place by one rename: a half-written entry is never read. A build that was killed
finds its partial folder again, so a stage may resume from files it left there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from src.errors import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PROGRESS_SUFFIX = ".progress"  # files a build keeps to resume from; not part of the finished entry


def fingerprint(key: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of ``key`` as canonical JSON."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Writes ``text`` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _flush(temporary)
    temporary.replace(path)


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
        if not self.path.is_dir():
            return False
        damage = self._damage()
        if damage:
            log.warning("%s entry %s is damaged (%s): it will be rebuilt", self.stage, self.path, damage)
        return damage is None

    def obtain(self, build: Callable[[Path], None]) -> Path:
        """The entry's folder, built by ``build(folder)`` if it is absent or damaged.

        Where another process is building the same entry, this one waits for it.
        """
        if self.is_complete():
            return self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _waiting_lock(self.path.with_suffix(".lock"), self.stage):
            if not self.is_complete():
                self._build(build)
        return self.path

    def _build(self, build: Callable[[Path], None]) -> None:
        partial = self.path.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        build(partial)
        for leftover in partial.glob(f"*{PROGRESS_SUFFIX}"):
            leftover.unlink()
        write_json(partial / "key.json", dict(self.key))
        files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST)
        digests = {str(path.relative_to(partial)): sha256_file(path) for path in files}
        write_json(partial / MANIFEST, digests)
        for path in files:
            _flush(path)
        if self.path.exists():  # damaged, or it would have been read
            shutil.rmtree(self.path)
        partial.replace(self.path)
        _flush(self.path.parent)

    def _damage(self) -> str | None:
        try:
            digests = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            for name, digest in digests.items():
                if sha256_file(self.path / name) != digest:
                    return f"checksum of {name} differs"
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (OSError, ValueError, AttributeError) as error:
            return f"unreadable: {error}"
        return None


class _waiting_lock:  # noqa: N801 - reads as a function where it is used
    """File lock that says so when it has to wait. Released by the system when its holder dies."""

    def __init__(self, path: Path, what: str) -> None:
        self._lock = FileLock(path)
        self._what = what

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that is making the same %s entry", self._what)
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


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
