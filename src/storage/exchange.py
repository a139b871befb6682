"""Two folders change places at once, so that a reader finds one or the other under each name and never neither."""

from __future__ import annotations

import ctypes
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

_HERE: Final = -100  # AT_FDCWD of fcntl.h
_EXCHANGE: Final = 2  # RENAME_EXCHANGE of linux/fs.h


def exchange(one: Path, other: Path) -> None:
    """Swaps two paths of one file system; in three steps where the system cannot do so in one.

    Raises:
        OSError: they cannot be renamed.
    """
    with suppress(OSError, AttributeError):  # another C library
        paths = os.fsencode(one), os.fsencode(other)
        if ctypes.CDLL("libc.so.6").renameat2(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) == 0:
            return
    aside = one.with_name(f"{other.name}.{secrets.token_hex(4)}{one.suffix}")  # like ``one`` to whoever finds it
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
