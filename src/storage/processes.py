"""Names of processes that hold something on disk, and whether such a process still runs."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


def own_name() -> str:
    """This process among all that may share a folder: its machine (hashed), its number and when it began."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{_began(pid)}"


def runs(name: str) -> bool | None:
    """Whether the process of that name (see :func:`own_name`) runs; None where this machine cannot tell."""
    machine, _, rest = name.partition("-")
    pid, _, began = rest.partition("-")
    if machine != _machine() or not pid.isdecimal():
        return None
    return not ended(int(pid)) and _began(int(pid)) == began  # else the number was given to another process


def ended(pid: int) -> bool:
    """Whether no process of this machine has that number, or one that has ended and that nobody waited for."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # somebody else's
    except (ProcessLookupError, OverflowError):
        return True
    return _status(pid)[:1] == ["Z"]


@cache
def _machine() -> str:
    """Host, boot and process namespace: within these, a number is one process at a time."""
    told = [socket.gethostname()]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(told).encode(errors="surrogateescape")).hexdigest()[:8]


def _began(pid: int) -> str:
    """Clock ticks from boot to the beginning of a process; "0" where the system does not tell."""
    status = _status(pid)
    return status[19] if len(status) > 19 else "0"


def _status(pid: int) -> list[str]:
    """What follows the name in ``/proc/<pid>/stat``: the state first; nothing where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    return status[status.rindex(b")") + 1 :].decode().split()  # the name may hold anything, also brackets
