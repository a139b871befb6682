"""Locks between processes that share a folder, also where its file system cannot lock files.

The system releases a lock (flock) when its holder dies. Where there is none, a marker file names the holder instead:
one that died on this machine is noticed, one of another machine cannot be asked.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import secrets
import socket
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from src.storage.processes import ended

log = logging.getLogger(__name__)

_NO_FLOCK: Final = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_PATIENCE: Final = 1.0  # seconds between looks at who set a marker
_said: set[int] = set()  # devices whose lack of locks has been told


class Lock:
    """The lock ``path``, held by at most one process; to be released by the one that acquired it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marker = path.with_suffix(".held")
        self._lock: BaseFileLock = FileLock(path, fallback_to_soft=False)

    def acquire(self, timeout: float = -1) -> AbstractContextManager[object]:
        """Waits for the lock, at most ``timeout`` seconds; for ever where that is negative. Returns what releases it.

        Raises:
            filelock.Timeout: another process held it all that time.
            OSError: its folder cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not isinstance(self._lock, SoftFileLock):
                return self._lock.acquire(timeout)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_FLOCK:
                raise
            _say_once(self._path.parent, error)
            self._lock = SoftFileLock(self._marker)
        return self._mark(timeout)

    def _mark(self, timeout: float) -> AbstractContextManager[object]:
        """Sets the marker. The library takes over one of a process that is gone, but not of one nobody waited for."""
        end = math.inf if timeout < 0 else time.monotonic() + timeout
        while True:
            try:
                return self._lock.acquire(max(min(end - time.monotonic(), _PATIENCE), 0))
            except Timeout:
                if not self._take_over() and time.monotonic() >= end:
                    raise

    def _take_over(self) -> bool:
        """Removes the marker of a process that has ended; False where there is none."""
        try:
            found = self._marker.read_bytes()
            pid, host, *_ = found.decode().splitlines()
            if host != socket.gethostname() or not ended(int(pid)):
                return False
            aside = self._marker.with_name(f"{self._marker.name}.{secrets.token_hex(8)}")
            self._marker.rename(aside)
            whole = aside.read_bytes() == found
            if not whole:  # another process was faster, and holds it now
                self._marker.hardlink_to(aside)
            aside.unlink()
        except (OSError, ValueError):
            return False
        return whole

    def release(self) -> None:
        """Gives the lock back, where it is held."""
        self._lock.release()

    def remove(self) -> None:
        """Removes the lock's file: to be called by its holder, where nothing is left that it guards."""
        with suppress(OSError):
            self._path.unlink()

    @property
    def holder(self) -> str:
        """Who holds the lock, as far as a marker tells, and how to go on where that process is gone; else ""."""
        try:
            pid, host, *_ = self._marker.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return ""
        elsewhere = "" if host == socket.gethostname() else f"; should it be gone, remove {self._marker}"
        return f" (process {pid} on {host}{elsewhere})"


def _say_once(folder: Path, error: OSError) -> None:
    """Says what it means for jobs that share a folder that its files cannot be locked."""
    device = folder.stat().st_dev
    if device not in _said:
        _said.add(device)
        log.warning(
            "the file system of %s cannot lock files (%s): marker files (*.held) take the place of locks. Jobs can "
            "share the folder; should one be killed on another machine, the marker it leaves is to be removed by hand",
            folder,
            os.strerror(error.errno or 0),
        )
