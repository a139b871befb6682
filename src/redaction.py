"""What leaves this computer or is logged carries no key, no token and no home directory."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REDACTED = "***"
_ALWAYS = {"password", "passwd", "passphrase", "secret", "credential", "authorization", "bearer"}
_UNLESS_A_NUMBER = {"token", "key", "apikey"}  # `eos_token_id: 50256` and `tokens: 30` are settings, not secrets
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_SHORTEST_SECRET = 8  # characters; shorter keys, tokens and values of the environment are ordinary words


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of ``config`` fit for publication; applying it twice changes nothing more.

    Strings under keys that look like a token, key, secret or password become ``***`` (numbers, and words too short to
    be one, as in ``cache.keys=channel``, stay under the first two), as do hub tokens, credentials in URLs and the
    values of such environment variables wherever they appear. The home directory becomes ``~``. Paths become strings
    and tuples lists, so that the copy can be written as JSON.
    """
    cleaned = _Cleaner().value(config, frozenset())
    assert isinstance(cleaned, dict)
    return cleaned


def redact_text(text: str) -> str:
    """``text`` without hub tokens, credentials in URLs, secret values of the environment and the home directory."""
    return _Cleaner().text(text)


def redact_command(line: str) -> str:
    """A command as in :func:`redact_text`, with the home directory in full, as no shell finds ``~`` inside a word."""
    return _Cleaner().secrets(line)


def redact_file(path: Path) -> None:
    """Replaces a text file by :func:`redact_text` of it, in one step; a file that is not there stays so."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    clean = redact_text(text)
    if clean != text:
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        temporary.write_text(clean, encoding="utf-8")
        temporary.replace(path)


class RedactingFilter(logging.Filter):
    """Passes every record, message and traceback redacted; for handlers that write to a terminal or a file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.msg, record.args = redact_text(record.getMessage()), ()
        if isinstance(record.exc_info, tuple):
            record.exc_text = redact_text("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True


def _words(key: str) -> frozenset[str]:
    """Words of a key in snake, kebab or camel case, lower case and singular."""
    return frozenset(word.lower().removesuffix("s") for word in _WORD.findall(key))


def _homes() -> set[str]:
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home directory
        return set()
    return {path for path in (str(home), str(home.resolve())) if path != home.anchor}


def _secrets() -> list[str]:
    """Secret values of the environment, longest first so that one which contains another is replaced whole."""
    sensitive = _ALWAYS | _UNLESS_A_NUMBER
    values = {value for name, value in os.environ.items() if _words(name) & sensitive}
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)


class _Cleaner:
    """Redaction under one state of the environment, which is read once."""

    def __init__(self) -> None:
        self._secrets = _secrets()
        homes = "|".join(re.escape(home) for home in sorted(_homes(), key=len, reverse=True))
        self._home = re.compile(rf"(?<![\w.~-])(?:{homes})(?![\w.-])") if homes else None

    def value(self, value: Any, sensitive: frozenset[str]) -> Any:
        """Cleaned ``value``; ``sensitive`` are the telling words among the keys that lead to it."""
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self.value(item, sensitive | (_words(str(key)) & (_ALWAYS | _UNLESS_A_NUMBER)))
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item, sensitive) for item in value]
        if value is None or isinstance(value, bool) or (isinstance(value, (int, float)) and not sensitive & _ALWAYS):
            return value
        if sensitive and not (isinstance(value, str) and len(value) < _SHORTEST_SECRET and not sensitive & _ALWAYS):
            return REDACTED
        return self.text(str(value)) if isinstance(value, (str, os.PathLike)) else value

    def text(self, text: str) -> str:
        """``text`` without secrets and home directory."""
        text = self.secrets(text)
        return self._home.sub("~", text) if self._home else text

    def secrets(self, text: str) -> str:
        """``text`` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return _URL_CREDENTIALS.sub(REDACTED, _HUB_TOKEN.sub(REDACTED, text))
