"""What looks like a secret: keys of the usual services, credentials and signatures in URLs, values under telling names.

A git commit or a checksum is as random as a key. So plain hexadecimal counts under a telling name only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

REDACTED: Final = "***"
REFERENCE: Final = (
    "EDGE_ASR_SECRET_"  # variables that hold a secret of the command line: see src.storage.secret_references
)
MAYBE, SURELY = 1, 2  # how telling a name is: under the first, numbers and short words are settings

_SURELY: Final = {"password", "passwd", "passphrase", "pwd", "secret", "credential", "authorization", "bearer"}
_MAYBE: Final = {"token", "key", "signature", "sig", "auth", "jwt", "pat", "cookie"}  # `tokens: 30` is no secret
_JOINED: Final = ("password", "passwd", "passphrase", "secret")  # as in PGPASSWORD
_JOINED_MAYBE: Final = ("token", "apikey", "accesskey", "secretkey", "privatekey", "authkey")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SHORTEST: Final = 8  # characters of a key under a name that may be telling

# Each begins with a literal, which is what makes a search of many megabytes fast.
_KEYS: Final = tuple(
    map(
        re.compile,
        (
            r"hf_[A-Za-z0-9]{16,}",
            r"api_org_[A-Za-z0-9]{16,}",
            r"sk[-_](?=[\w-]*\d)[\w-]{16,}",
            r"rk_(?:live|test)_\w{16,}",
            r"AKIA[0-9A-Z]{16}(?![A-Za-z0-9+=])",
            r"ASIA[0-9A-Z]{16}(?![A-Za-z0-9+=])",
            r"AIza[\w-]{35}(?![\w+=-])",
            r"ya29\.[\w.-]{20,}",
            r"gh[pousr]_[A-Za-z0-9]{20,}",
            r"github_pat_\w{20,}",
            r"gl(?:pat|dt|rt|ptt|cbt)-[\w.-]{16,}",
            r"xox[abceprs]-[\w-]{10,}",
            r"xapp-[\w-]{10,}",
            r"npm_[A-Za-z0-9]{30,}",
            r"pypi-[\w-]{50,}",
            r"dop_v1_[0-9a-f]{40,}",
            r"wandb_v\d+_\w{20,}",
            r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
            r"-----BEGIN\s(?:[A-Z0-9]+\s)*PRIVATE\sKEY(?:\sBLOCK)?-----[^\"']*?-----END[^\"']*?PRIVATE\sKEY(?:\sBLOCK)?-----",
        ),
    )
)
_BEFORE_KEY: Final = re.compile(r"[A-Za-z0-9]$")  # inside of a longer word, as in the base64 of a sound
_CREDENTIALS = re.compile(r"://([^/\s\"'<>?#\\]*)@")
_HEADER = re.compile(r"(?i:authorization)(?:[\"']?\s*[:=]\s*[\"']?)(?:(?i:bearer|basic|token|digest)\s+)?([^\s\"',;]+)")
_SCHEME = re.compile(r"\bBearer\s+([\w.~+/=-]{16,})|\bBasic\s+((?=[A-Za-z+/]*[0-9=A-Z])[A-Za-z0-9+/]{8,}={0,2})")
_ASSIGNED = re.compile(r"(?:=|%3[Dd])(?:\\?[\"'])?((?:[^\s\"'&#,;<>\\()\[\]{}$]|\$(?!{))+)")
_NAME = re.compile(r"[\w.-]{1,80}$")
_QUOTED = re.compile(r"([\"'])([\w.@/-]{1,80})\1\s*:\s*([\"'])([^\s\"'\\]+)\3")
_LINE = re.compile(r"^[ \t]*(?:- )?([\w.@/-]{1,80}): ([^\s\"'{}\[\]]+|\"[^\"\n]+\"|'[^'\n]+')[ \t]*$", re.MULTILINE)
_HEXADECIMAL = re.compile(r"(?<![0-9A-Za-z])([0-9A-Fa-f]{32,})(?![0-9A-Za-z])")
_NEAR = re.compile(r"(?i:api[ _-]?key|token|secret|passw(?:or)?d|login)\W{1,12}$")
_NETRC = re.compile(r"\blogin\s+\S+\s+password\s+(\S+)")
_SIGNED: Final = {_HEADER: ("uthorization", "UTHORIZATION"), _SCHEME: ("Bearer", "Basic"), _NETRC: ("login",)}
_REACH: Final = 80  # characters before a sign in which its name is looked for


@lru_cache(maxsize=4096)
def telling(name: str) -> int:
    """How telling a name in snake, kebab or camel case is: 0, :data:`MAYBE` or :data:`SURELY`."""
    words = {word.lower() for word in _WORD.findall(name)}
    words |= {word.removesuffix("s") for word in words}
    if words & _SURELY or any(word.endswith(_JOINED) for word in words):
        return SURELY
    return MAYBE if words & _MAYBE or any(word.endswith(_JOINED_MAYBE) for word in words) else 0


def worth_hiding(value: str | float, how: int) -> bool:
    """Whether a value under a name that is telling by so much is a secret, and not a setting or hidden already."""
    if not isinstance(value, str):
        return how == SURELY
    if value.startswith(REDACTED) or re.fullmatch(r"\$\{[^{}]*\}", value) or value in ("null", "true", "false", "None"):
        return False
    return how == SURELY or (len(value) >= _SHORTEST and re.fullmatch(r"[-+.\deE]+", value) is None)


def hidden(text: str, mark: Callable[[str], str]) -> str:
    """``text`` with ``mark(secret)`` in place of each secret."""

    def whole(found: re.Match[str]) -> str:
        inside = _BEFORE_KEY.search(text, max(0, found.start() - 1), found.start())
        return found[0] if inside else mark(found[0])

    for pattern in _KEYS:
        text = pattern.sub(whole, text)
    if "://" in text:
        text = _CREDENTIALS.sub(lambda found: _inner(found, mark), text)
    if "=" in text or "%3" in text:
        text = _ASSIGNED.sub(lambda found: _assigned(found, mark), text)
    if ":" in text:
        text = _QUOTED.sub(lambda found: _named(found, found[2], 4, mark, quoted=True), text)
        text = _LINE.sub(lambda found: _named(found, found[1], 2, mark, quoted=False), text)
    for pattern, signs in _SIGNED.items():
        if any(sign in text for sign in signs):
            text = pattern.sub(lambda found: _inner(found, mark), text)
    return _HEXADECIMAL.sub(lambda found: _inner(found, mark) if _is_named(found) else found[0], text)


def _inner(found: re.Match[str], mark: Callable[[str], str]) -> str:
    """The match with its group marked, unless it is already."""
    group = found.lastindex or 0
    if found[group].startswith(REDACTED) or not found[group]:
        return found[0]
    return _with(found, group, mark)


def _is_named(found: re.Match[str]) -> bool:
    """Whether the words before it call it a key."""
    return _NEAR.search(found.string, max(0, found.start() - _REACH), found.start()) is not None


def _with(found: re.Match[str], group: int, mark: Callable[[str], str]) -> str:
    start, end = found.start(group) - found.start(), found.end(group) - found.start()
    return found[0][:start] + mark(found[group]) + found[0][end:]


def _assigned(found: re.Match[str], mark: Callable[[str], str]) -> str:
    """``name=value`` of a command line, an environment, a log; in the query of a URL short values are hidden too."""
    named = _NAME.search(found.string, max(0, found.start() - _REACH), found.start())
    name = named[0] if named else ""
    before = found.string[max(0, named.start() - 1) : named.start()] if named else ""
    if before == "%":  # an encoded sign
        name, before = name[2:], "?"
    how = telling(name)
    if how and before in ("?", "&", ";"):
        how = SURELY
    if how and worth_hiding(found[1], how):
        return _with(found, 1, mark)
    return _with(found, 1, lambda value: _ASSIGNED.sub(lambda inner: _assigned(inner, mark), value))


def _named(found: re.Match[str], name: str, group: int, mark: Callable[[str], str], *, quoted: bool) -> str:
    """``name: value`` of a yaml, or within quotes of JSON or Python; there a doubtful name has to be its last word."""
    how = telling(name)
    value = found[group].strip("\"'")
    if how == MAYBE and quoted and (len(value) < 2 * _SHORTEST or not telling(_WORD.findall(name)[-1])):
        return found[0]
    if not how or not worth_hiding(value, how):
        return found[0]
    return _with(found, group, mark)
