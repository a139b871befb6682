"""From a composed ``conf/method`` entry to a method, importing nothing but methods."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from src.errors import UserError, did_you_mean, of_choices
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
    values = {key: _build_value(value, f"{field}.{key}") for key, value in config.items() if key != "_target_"}
    try:
        return method(**values)
    except ValidationError as error:
        raise _to_user_error(error, method, config, field) from None


def _build_value(value: Any, field: str) -> Any:
    """A parameter's value: mappings with a target become methods, alone or in a list; everything else stays."""
    if isinstance(value, Mapping):
        return build_method(value, field) if "_target_" in value else dict(value)
    if isinstance(value, list | tuple):
        return tuple(_build_value(item, f"{field}.{index}") for index, item in enumerate(value))
    return value


def _to_user_error(error: ValidationError, method: type[Method], config: Mapping[str, Any], field: str) -> UserError:
    """The first of pydantic's findings, told by the description and the example of the parameter's type."""
    first = error.errors()[0]
    name, kind = str(first["loc"][0]), first["type"]
    at, value, known = f"{field}.{name}", config.get(name), {each.name for each in fields(method)}
    if kind == "missing":
        return UserError(at, "no value is set", f"Add {at}=... to the command line")
    if name not in known:
        return UserError(at, f"{method.__name__} has no such parameter", did_you_mean(name, known))
    if kind == "literal_error":
        return UserError(at, f"{first['input']!r} is no choice", of_choices(first["input"], first["ctx"]["expected"]))
    if kind.startswith("dataclass"):
        return UserError(at, f"{value!r} is not a method", f"Use method@{at}=rtn, or another file of conf/method")
    asked = FieldInfo.from_annotation(get_type_hints(method, include_extras=True)[name])
    if asked.description and asked.examples:
        return UserError(at, f"{value!r} is not {asked.description}", f"Use e.g. {at}={asked.examples[0]}")
    if kind == "bool_type":
        return UserError(at, f"{value!r} is neither true nor false", f"Use {at}=true or {at}=false")
    return UserError(at, f"{value!r} is not valid ({first['msg']})", "See the files of conf/method")


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
