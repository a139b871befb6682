"""Which linears are quantized, and how: the plan a method starts from, and what it has to be able to do."""

from __future__ import annotations

import math
from collections.abc import Iterable

from src.errors import UserError
from src.lowbit.granularity import PER_CHANNEL, WeightSpec
from src.models.graph import Component, Linear, ModelGraph
from src.settings import ScopeSettings

SMALLEST_GROUP_OFFERED = 8


def check_group_size(linears: Iterable[Linear], group_size: int) -> None:
    """Checks that ``group_size`` divides the input width of every one of ``linears``.

    Raises:
        UserError: it does not; names the first such linear and the sizes that would do.
    """
    linears = tuple(linears)
    if group_size == PER_CHANNEL:
        return
    for linear in linears:
        if linear.in_features % group_size:
            raise UserError(
                "group_size",
                f"{group_size} does not divide the input width {linear.in_features} of {linear.path}",
                _offer(math.gcd(*(each.in_features for each in linears))),
            )


def _offer(width: int) -> str:
    sizes = [size for size in range(width, SMALLEST_GROUP_OFFERED - 1, -1) if width % size == 0]
    if not sizes:
        return "Use -1, one group per output channel"
    return f"Use -1 or a size that divides every layer in scope: {', '.join(map(str, sizes))}"


def in_scope(linear: Linear, scope: ScopeSettings) -> bool:
    """Whether ``scope`` includes the component that ``linear`` belongs to."""
    flags = {
        Component.ENCODER: scope.encoder,
        Component.DECODER: scope.decoder,
        Component.CROSS_ATTENTION: scope.cross_attention,
    }
    return flags[linear.component]


def uniform_plan(graph: ModelGraph, scope: ScopeSettings, spec: WeightSpec | None) -> dict[str, WeightSpec | None]:
    """The same ``spec`` for every linear in scope; the others are listed with None and stay at 16 bits.

    A ``spec`` of None keeps all weights at 16 bits, for runs that quantize activations or the cache alone.

    Returns:
        Module path to specification, in execution order, for every linear of ``graph``.

    Raises:
        UserError: nothing is in scope, or the group size does not divide an input width.
    """
    chosen = [linear for linear in graph.linears if in_scope(linear, scope)]
    if not chosen:
        *others, last = dict.fromkeys(f"scope.{linear.component}" for linear in graph.linears)
        flags = f"{', '.join(others)} or {last}" if others else last
        remedy = f"Set {flags} to true, or set head_bits or frontend_bits"
        raise UserError("scope", "no linear is in scope", remedy)
    if spec is not None:
        check_group_size(chosen, spec.group_size)
    return {linear.path: spec if in_scope(linear, scope) else None for linear in graph.linears}
