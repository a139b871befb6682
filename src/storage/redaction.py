"""What is written, printed, logged or sent carries no key, no token and, where others read it, no home directory.

What a secret looks like is in :mod:`src.storage.secret_patterns`; this module knows the context: the keys that lead to
a value, the secrets of the environment, the home directory. Whatever is written passes one of its functions: files
through :func:`src.storage.store.write_atomic`, what is printed through :func:`guard_output`, logs through
:class:`RedactingFilter`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TextIO, cast
from urllib.parse import quote

from src.storage.secret_patterns import REDACTED, REFERENCE, hidden, telling, worth_hiding

_SHORTEST_SECRET: Final = 8  # characters; shorter values of the environment are ordinary words
_REFERENCE: Final = re.compile(rf"\$\\?\{{oc\.env\\?:{REFERENCE}\w+\\?\}}")  # also as Hydra escapes it
_ROUNDS: Final = 100_000  # of the digest that stands for a secret in a key: too many to guess a password by trying


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of ``config`` fit for publication; applying it twice changes nothing more.

    Strings under keys that look like a token, key, secret or password become ``***`` (numbers, and words too short to
    be one, as in ``cache.keys=channel``, stay under the first two), as does what looks like a key wherever it appears,
    and the values of such environment variables. The home directory becomes ``~``. Paths become strings and tuples
    lists, so that the copy can be written as JSON.
    """
    cleaned = _walk(config, _cleaner().text)
    assert isinstance(cleaned, dict)
    return cleaned


def sealed(key: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of ``key`` that still tells different values apart: a secret becomes ``***`` and a digest of it.

    Applying it twice changes nothing more, and neither does :func:`without_secrets`.
    """
    cleaned = _walk(key, _cleaner(mark=_mark).secrets, mark=_mark)
    assert isinstance(cleaned, dict)
    return cleaned


def redact_text(text: str) -> str:
    """``text`` without secrets and without the home directory."""
    return _cleaner().text(text)


def without_secrets(text: str) -> str:
    """``text`` without secrets; the home directory stays, as no program finds ``~`` inside a word."""
    return _cleaner().secrets(text)


def replaced(text: str, replacement: Callable[[str], str]) -> str:
    """``text`` with ``replacement(secret)`` in place of each secret."""
    found = dict[str, str]()

    def mark(secret: str) -> str:
        return found.setdefault(secret, _mark(secret))

    marked = _Cleaner(os.environ, mark).secrets(text)
    for secret, each in found.items():
        marked = marked.replace(each, replacement(secret))
    return marked


def redact_error(error: BaseException | None) -> None:
    """Takes secrets out of what an exception says, and those behind it, in place: it may be pickled or printed."""
    while error is not None:
        error.args = tuple(without_secrets(item) if isinstance(item, str) else item for item in error.args)
        for name, value in list(vars(error).items()):
            if isinstance(value, str):
                setattr(error, name, without_secrets(value))
        error = error.__cause__ or error.__context__


def redact_yaml(path: Path) -> None:
    """Replaces a yaml file by a redacted copy, in one step; a file that is not there or is clean stays as it is."""
    if not path.exists():
        return
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    clean = _walk(plain, _cleaner().text)
    if clean != plain:
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        OmegaConf.save(OmegaConf.create(clean), temporary)
        temporary.replace(path)


class RedactingFilter(logging.Filter):
    """Passes every record, message and traceback redacted; for handlers that write to a terminal or a file."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact_text(record.getMessage()), ()
        if isinstance(record.exc_info, tuple):
            record.exc_text = redact_text("".join(traceback.format_exception(*record.exc_info)).rstrip())
        if record.stack_info:
            record.stack_info = redact_text(record.stack_info)
        return True


def guard_output() -> None:
    """From now on what this process prints, its warnings and tracebacks included, holds no secret."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, guarded(stream))


def guarded(stream: TextIO) -> TextIO:
    """The stream, whose writes hold no secret."""
    return cast("TextIO", _Guarded(stream))


class _Guarded:
    """A text stream whose writes are cleaned; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(without_secrets(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _walk(
    value: Any, text: Callable[[str], str], mark: Callable[[str], str] = lambda _: REDACTED, sensitive: int = 0
) -> Any:
    """Cleaned ``value``; ``sensitive`` is how telling the keys that lead to it are."""
    if isinstance(value, Mapping):
        return {
            text(str(key)): _walk(item, text, mark, max(sensitive, telling(str(key)))) for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_walk(item, text, mark, sensitive) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, (str, int, float, os.PathLike)):
        return value
    if sensitive and worth_hiding(value if isinstance(value, (int, float)) else str(value), sensitive):
        return mark(str(value))
    return value if isinstance(value, (int, float)) else text(str(value))


@lru_cache(maxsize=256)
def digest(secret: str) -> str:
    """Eight hexadecimal digits that tell a secret from another and do not tell it."""
    found = hashlib.pbkdf2_hmac("sha256", secret.encode(errors="surrogatepass"), b"edge-asr", _ROUNDS)
    return found.hex()[:8]


def _mark(secret: str) -> str:
    return f"{REDACTED}{digest(secret)}"


class _Cleaner:
    """Redaction under one state of the environment, which is read once."""

    def __init__(self, environment: Mapping[str, str], mark: Callable[[str], str] | None) -> None:
        self._mark = mark or (lambda _: REDACTED)
        self._references = mark is None  # whether what stands for a secret of the command line is shown as one
        known = {value for name, value in environment.items() if telling(name) and _is_secret(value)}
        spelled = {each for value in known for each in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
        self._known = sorted(spelled, key=len, reverse=True)  # one that contains another is replaced whole
        homes = "|".join(re.escape(home) for home in sorted(_homes(), key=len, reverse=True))
        self._home = re.compile(rf"(?<![\w.~-])(?:{homes})(?![\w.-])") if homes else None

    def text(self, text: str) -> str:
        """``text`` without secrets and home directory."""
        text = self.secrets(text)
        return self._home.sub("~", text) if self._home else text

    def secrets(self, text: str) -> str:
        if self._references:
            text = _REFERENCE.sub(REDACTED, text)
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, self._mark(secret))
        return hidden(text, self._mark)


_made: dict[Callable[[str], str] | None, tuple[dict[str, str], _Cleaner]] = {}


def _cleaner(mark: Callable[[str], str] | None = None) -> _Cleaner:
    now = dict(os.environ)
    made = _made.get(mark)
    if made is None or made[0] != now:
        made = _made[mark] = now, _Cleaner(now, mark)
    return made[1]


def _is_secret(value: str) -> bool:
    """Whether the value of a tellingly named variable is a secret, and not a number, a short word or a path."""
    if len(value) < _SHORTEST_SECRET or value.startswith(REDACTED):
        return False
    try:
        return not (value.startswith("/") and Path(value).exists())
    except OSError:  # longer than a path can be
        return True


def _homes() -> set[str]:
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home directory
        return set()
    return {path for path in (str(home), str(home.resolve())) if path != home.anchor}
