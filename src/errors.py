"""The one exception a user is meant to read: what is wrong, the value found, and what to do about it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

NOT_WRITABLE: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT}
)  # of an OSError that the user can mend


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


@contextmanager
def within(parent: str) -> Iterator[None]:
    """Names the fields of errors raised inside ``parent.field`` instead of ``field``."""
    try:
        yield
    except UserError as error:
        remedy = error.remedy.replace(error.field, f"{parent}.{error.field}")
        raise UserError(f"{parent}.{error.field}", error.problem, remedy) from None
