"""The one exception a user is meant to read: what is wrong, the value found, and what to do about it."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # of an OSError: there is no space left to write
NOT_WRITABLE: Final = FULL | {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE),
}  # of an OSError that the user can mend


_LONGEST: Final = 300  # characters of a path that are shown


class UserError(Exception):
    """A mistake in the input. Shown as one sentence without a traceback; the process exits with code 1.

    ``field`` names the setting, ``problem`` states what is wrong with which value, ``remedy`` says what to do.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem.rstrip('.')}. {remedy.rstrip('.')}.")
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        return type(self), (self.field, self.problem, self.remedy)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Sentence that lists the valid ``choices`` and, where one is close to ``word``, proposes it."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Available: {', '.join(known)}"


def of_choices(word: object, expected: str) -> str:
    """As :func:`did_you_mean`, of the choices that pydantic quotes: ``'a', 'b' or 'c'``; "" where they are no words."""
    choices = re.findall(r"'([^']*)'", expected)
    return did_you_mean(str(word), choices) if choices else ""


@contextmanager
def within(parent: str) -> Iterator[None]:
    """Names the fields of errors raised inside ``parent.field`` instead of ``field``."""
    try:
        yield
    except UserError as error:
        remedy = error.remedy.replace(error.field, f"{parent}.{error.field}")
        raise UserError(f"{parent}.{error.field}", error.problem, remedy) from None


def unwritable(error: OSError, elsewhere: str) -> UserError | None:
    """An error of the file system that the user can mend, by writing ``elsewhere`` or otherwise; None for any other."""
    if error.errno not in NOT_WRITABLE:
        return None
    reason = os.strerror(error.errno)
    path = str(error.filename or "")
    path = repr(path if len(path) <= _LONGEST else f"{path[: _LONGEST // 2]} ... {path[-_LONGEST // 2 :]}")
    if error.errno in FULL:
        where = f"of {path} " if error.filename else ""
        return UserError("files", f"the disk {where}is full ({reason})", f"Make room, or {elsewhere}")
    if not error.filename:
        return None
    return UserError("files", f"{path} cannot be used ({reason})", f"Check the disk and permissions, or {elsewhere}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives errors raised inside that name no file, as of a full disk, the one that they are of."""
    try:
        yield
    except OSError as error:
        if error.errno in NOT_WRITABLE and error.filename is None:
            error.filename = str(path)
        raise
