"""From a composed ``conf/method`` entry to a method, importing nothing but methods."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from src.errors import UserError, did_you_mean
from src.methods.base import Method

PACKAGE = "src.methods."


def build_method(config: Mapping[str, Any], field: str = "method") -> Method:
    """Builds the method that ``config`` describes: ``_target_``, ``name`` and the parameters.

    A parameter may itself be such a mapping, for methods that are composed of others. ``_target_`` can be set on the
    command line, and ``hydra.utils.instantiate`` would call whatever it names; here it can only name a subclass of
    :class:`Method` that is defined in ``src.methods``.

    Args:
        config: the composed entry of ``conf/method``.
        field: where it stands in the configuration, for error messages.

    Raises:
        UserError: ``_target_`` is not a method, or a parameter is unknown, missing or out of range.
    """
    method = _resolve(config.get("_target_"), field)
    known = {each.name: each for each in fields(method)}
    values = {key: value for key, value in config.items() if key != "_target_"}
    for key in values:
        if key not in known:
            raise UserError(f"{field}.{key}", f"{method.__name__} has no such parameter", did_you_mean(key, known))
    for name, each in known.items():
        if name not in values and each.default is MISSING:
            raise UserError(f"{field}.{name}", "no value is set", f"Add {field}.{name}=... to the command line")
    return method(**{key: _build_value(value, f"{field}.{key}") for key, value in values.items()})


def _build_value(value: Any, field: str) -> Any:
    """A parameter's value: mappings become methods, alone or in a list; everything else stays."""
    if isinstance(value, Mapping):
        return build_method(value, field)
    if isinstance(value, list | tuple):
        return tuple(_build_value(item, f"{field}.{index}") for index, item in enumerate(value))
    return value


def _resolve(target: object, field: str) -> type[Method]:
    """The method class called ``target``, which must be defined in the module that the name says."""
    module, _, name = str(target).rpartition(".")
    if module.startswith(PACKAGE):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            found = None
        if isinstance(found, type) and issubclass(found, Method) and found.__module__ == module:
            return found
    raise UserError(f"{field}._target_", f"{target!r} is not a method", "Use one of the files in conf/method")
