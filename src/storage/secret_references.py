"""Secrets of a command line move into the environment, and a reference takes their place, before Hydra reads it.

So what Hydra writes, what a launcher pickles and what a sweeper remembers hold ``${oc.env:EDGE_ASR_SECRET_...}``, which
OmegaConf resolves where the value is used: in this process and, as jobs inherit the environment, in every job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final

from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override

from src.storage.redaction import digest, replaced
from src.storage.secret_patterns import MAYBE, REFERENCE, telling, worth_hiding

_ENVIRONMENT: Final = "hydra.job.env_set"  # what is set there is nobody's business
_COPIED: Final = re.compile(r"\+?hydra\.job\.env_copy=\[([\w, ]*)\]")
_ELEMENT: Final = re.compile(r"(['\"])((?:\\.|(?!\1).)*)\1|[^\s,'\"\[\]{}]+")
_INTERPOLATION: Final = re.compile(r"(\$\{[^{}]*\})")


def without_secrets_in(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with references in place of secrets."""
    return [each for argument in arguments for each in _argument(argument)]


def conceal(node: DictConfig | ListConfig, path: str = "") -> None:
    """Puts references in place of the secrets in a configuration, also of those that come from yaml files."""
    stored: Any = OmegaConf.to_container(node, resolve=False)
    if not isinstance(stored, (dict, list)):  # null, missing, or an interpolation
        return
    with flag_override(node, "readonly", False):
        for key, text in stored.items() if isinstance(stored, dict) else enumerate(stored):
            below = f"{path}.{key}" if isinstance(stored, dict) else path
            if isinstance(text, (dict, list)):
                conceal(node[key], below)
            elif isinstance(text, str):
                clean = _reference(text) if _is_whole(text, below) else _with_references(text)
                if clean != text:
                    node[key] = clean


def _argument(argument: str) -> list[str]:
    """One argument; what Hydra would copy from the environment becomes references to it."""
    key, sign, value = argument.partition("=")
    if not sign or key.startswith("-"):
        return [argument]
    if copied := _COPIED.fullmatch(argument):
        names = [name.strip() for name in copied[1].split(",") if name.strip()]
        return [f"+{_ENVIRONMENT}.{name}=${{oc.env:{name}}}" for name in names]

    def element(found: re.Match[str]) -> str:
        quote, text = found[1] or "", found[2] if found[1] else found[0]
        return f"{quote}{_reference(text)}{quote}" if _is_whole(text, key.lstrip("+")) else found[0]

    return [f"{key}={_with_references(_ELEMENT.sub(element, value))}"]


def _is_whole(value: str, key: str) -> bool:
    """Whether all of a value is secret, for its key: not a number, a short word or, of the environment, a path."""
    how = telling(key)
    if not how and key.startswith(f"{_ENVIRONMENT}.") and not value.startswith("/"):
        how = MAYBE
    return how > 0 and "${" not in value and "???" not in value and worth_hiding(value, how)


def _with_references(text: str) -> str:
    """``text`` with references in place of what looks like a secret; what is one already stays."""

    def replacement(secret: str) -> str:
        parts = _INTERPOLATION.split(secret)
        return "".join(part if part.startswith("${") or not part.strip(":@") else _reference(part) for part in parts)

    return replaced(text, replacement)


def _reference(secret: str) -> str:
    name = f"{REFERENCE}{digest(secret).upper()}"
    os.environ[name] = secret
    return f"${{oc.env:{name}}}"
