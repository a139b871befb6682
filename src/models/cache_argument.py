"""The key and value cache by the name that the installed transformers gives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any


@cache
def cache_argument(function: Callable[..., Any]) -> str:
    """What a function of transformers calls the cache it takes: ``cache``; before 5.24, ``past_key_values``."""
    return "cache" if "cache" in signature(function).parameters else "past_key_values"


def cached(function: Callable[..., Any], held: Any) -> dict[str, Any]:
    """The keyword argument that hands the cache ``held``, or None, to ``function``."""
    return {cache_argument(function): held}
