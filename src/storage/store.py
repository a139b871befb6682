"""Fingerprinted results on disk: written atomically, verified when read, built once.

An entry is the folder ``<root>/<stage>/<fingerprint>/``. Its fingerprint hashes the settings that the result depends on
and, unless a time was taken, nothing about where it ran. The entry's files are built under a lock in
``<fingerprint>.<process>.partial/``, which no other process touches, hashed into a manifest, flushed, and moved into
place at once: a half-written entry is never read. What a killed process leaves is taken over by the next, which may
resume from its ``*.progress`` files; whatever else it left behind is removed first.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from src.errors import UserError, naming
from src.storage import processes
from src.storage.digest import fingerprint as fingerprint
from src.storage.digest import sha256_once
from src.storage.exchange import exchange
from src.storage.integrity import KEY, MANIFEST, damage
from src.storage.locks import Lock
from src.storage.redaction import sealed, without_secrets

log = logging.getLogger(__name__)

_LONGEST_PATH = 4096  # bytes, on Linux
_LONGEST_ROOT = _LONGEST_PATH - 256  # an exported model's files have the longest names below it
_SHORT = 0.2  # seconds that nobody needs to know of
_told: set[tuple[Path, str]] = set()  # damage that this process has logged
PROGRESS_SUFFIX = ".progress"  # files a build keeps to resume from; not part of the finished entry


def write_atomic(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8, without keys and tokens."""
    write_bytes(path, without_secrets(text).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # a process's number is its own on one machine only
    with naming(path):
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
        return fingerprint(self.key)

    @property
    def path(self) -> Path:
        """Folder of the finished entry."""
        return self.root / self.stage / self.fingerprint

    def is_complete(self) -> bool:
        """Whether the entry is there and every file matches its checksum; damage is logged."""
        found = damage(self.path)
        if found and self.path.is_dir():
            found = damage(self.path)  # another process may have put a new one into its place meanwhile
            if found and (self.path, found) not in _told:
                _told.add((self.path, found))
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

    def discard_damaged(self) -> None:
        """Removes the entry where it is damaged, so that it is made again once it is needed; one in use is left."""
        if not self.path.is_dir() or damage(self.path) is None:
            return
        lock = Lock(self.path.with_suffix(".lock"))
        with suppress(Timeout), lock.acquire(timeout=0):
            found = damage(self.path)
            if found and self.path.is_dir():
                log.warning("%s entry %s is damaged (%s): it is removed", self.stage, self.path, found)
                self._remove()

    def _remove(self) -> None:
        aside = self.path.with_name(f"{self.fingerprint}.{secrets.token_hex(4)}.partial")
        self.path.rename(aside)
        shutil.rmtree(aside)

    def _build(self, build: Callable[[Path], None]) -> None:
        partial = self._claim()
        with naming(partial), _tidied(partial):
            build(partial)
            _clear(partial, progress=True)
            write_json(partial / KEY, dict(self.key))
            files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST)
            digests = {str(path.relative_to(partial)): sha256_once(path) for path in files}
            write_json(partial / MANIFEST, digests)
            for path in files:
                _flush(path)
            _install(partial, self.path)
            _flush(self.path.parent)

    def _claim(self) -> Path:
        """This process's own folder to build in, with what is left to resume from of one that is gone."""
        own = self.path.with_name(f"{self.fingerprint}.{processes.own_name()}.partial")
        left = [path for path in self.path.parent.glob(f"{self.fingerprint}*.partial") if path != own]
        for path in sorted(left, key=_modified, reverse=True):
            if processes.runs(path.name.partition(".")[2].removesuffix(".partial")):
                continue  # it holds no lock that this process can see, but it writes there
            with suppress(OSError):  # the first becomes this process's own
                path.rename(own)
            shutil.rmtree(path, ignore_errors=True)
        own.mkdir(exist_ok=True)
        _clear(own, progress=False)  # what an earlier attempt left is not this one's result
        return own


def _modified(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _clear(folder: Path, *, progress: bool) -> None:
    """Removes the files to resume from, or everything else."""
    for path in folder.iterdir():
        if path.name.endswith(PROGRESS_SUFFIX) is progress:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def _tidied(partial: Path) -> Iterator[None]:
    """A build that fails leaves what it may resume from, and no other file that takes space."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            _clear(partial, progress=False)
            partial.rmdir()  # where nothing is left to resume from
        raise


def _install(partial: Path, path: Path) -> None:
    """Moves a finished folder into its place, in exchange for what is there: damaged, or to be replaced."""
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        exchange(partial, path)
        partial.unlink() if partial.is_symlink() or not partial.is_dir() else shutil.rmtree(partial)


@contextmanager
def _locked(path: Path, stage: str) -> Iterator[None]:
    """Holds a lock, and says so when it has to wait for it."""
    lock = Lock(path)
    try:
        lock.acquire(timeout=_SHORT)
    except Timeout:
        log.info("waiting for another process that is making the same %s entry%s", stage, lock.holder)
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
        """The entry of ``stage`` named by ``key``, whether or not it exists yet; secrets in it are sealed."""
        return Entry(self.root, stage, sealed(key))


def open_store(output_dir: Path) -> Store:
    """The store below ``output_dir``, which must be writable.

    Raises:
        UserError: the folder cannot be made or written, or its name is too long.
    """
    root = output_dir / "cache"
    length = len(os.fsencode(root.absolute()))
    if length > _LONGEST_ROOT:
        problem = f"its path has {length} bytes, and below it more are needed than the {_LONGEST_PATH} of a path"
        raise UserError("output_dir", problem, f"Choose one of at most {_LONGEST_ROOT} with output_dir=/path")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        remedy = "Choose a writable folder with output_dir=/path"
        raise UserError("output_dir", f"{str(output_dir)!r} cannot be written ({error.strerror})", remedy) from None
    return Store(root)
