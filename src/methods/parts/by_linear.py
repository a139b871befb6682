"""Numbers that hold for some linears: for a component of the model, or where a name is part of a linear's path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from src.errors import UserError, did_you_mean
from src.models.graph import Component, Linear

DEFAULT: Final = "default"  # holds where no other name does


def number_of(linear: Linear, numbers: Mapping[str, float]) -> float | None:
    """What ``numbers`` says of ``linear``; None where no name matches.

    A name is a :class:`~src.models.graph.Component`, or consecutive parts of a path, as ``fc2`` or
    ``self_attn.v_proj``. The order they are in does not count: parts of the path come before the component, more parts
    before fewer, and of equally many those that end later.
    """
    ranks = {name: rank for name in numbers if (rank := _rank(name, linear)) is not None}
    return numbers[max(ranks, key=ranks.__getitem__)] if ranks else numbers.get(DEFAULT)


def check_names(numbers: Mapping[str, float], linears: Iterable[Linear], planned: Iterable[str], field: str) -> None:
    """Checks that every name matches one of ``linears``, and that there is a number for each of the paths ``planned``.

    Raises:
        UserError: a name matches none, or a path has no number. ``field`` is where the numbers are set.
    """
    known = list(linears)
    for name in numbers:
        if name != DEFAULT and all(_rank(name, linear) is None for linear in known):
            names = dict.fromkeys((DEFAULT, *(each.component.value for each in known)))
            names |= dict.fromkeys(each.path.rpartition(".")[2] for each in known)
            raise UserError(field, f"{name!r} is no part of this model", did_you_mean(name, names))
    paths = set(planned)
    for linear in known:
        if linear.path in paths and number_of(linear, numbers) is None:
            problem = f"no number holds for {linear.path} ({linear.component.value})"
            raise UserError(field, problem, f"Add one for all others, as in {field}={{{DEFAULT}: 0.25, fc2: 0.5}}")


def _rank(name: str, linear: Linear) -> tuple[int, int] | None:
    """How closely a name describes a linear, as parts and where they end; None where it does not."""
    if name in {each.value for each in Component}:
        return (0, 0) if linear.component.value == name else None
    start = f".{linear.path}.".rfind(f".{name}.")
    return None if start < 0 else (name.count(".") + 1, start + len(name))
