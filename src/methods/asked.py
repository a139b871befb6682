"""What the settings ask of every linear, and what a method or a model cannot do of it."""

from __future__ import annotations

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.base import Method
from src.models.graph import ModelGraph
from src.quant.plan import in_scope, uniform_plan
from src.settings import FULL_PRECISION, Settings


def weight_plan(graph: ModelGraph, settings: Settings) -> dict[str, WeightSpec | None]:
    """Grid of every linear's weight by path; ``None`` where it keeps 16 bits.

    Raises:
        UserError: nothing is in scope, or the group size does not divide a layer's input.
    """
    if settings.method_name == "fp" or settings.wbits == FULL_PRECISION:
        return dict.fromkeys((linear.path for linear in graph.linears), None)
    spec = WeightSpec(settings.wbits, settings.group_size, settings.symmetric)
    return uniform_plan(graph, settings.scope, spec)


def input_bits(graph: ModelGraph, settings: Settings) -> dict[str, int]:
    """Bits of every linear's input by path."""
    scope = settings.scope
    return {each.path: settings.abits if in_scope(each, scope) else FULL_PRECISION for each in graph.linears}


def check_inputs(method: Method, settings: Settings) -> None:
    """Checks that ``method`` can do without the default grids of activations, where others are asked for.

    Raises:
        UserError: it simulates rounded activations while it learns, and knows only the default ones.
    """
    chosen = settings.activation
    if settings.abits == FULL_PRECISION or not method.needs.simulates_inputs:
        return
    remedy = "or a method that does not, such as rtn, gptq, awq, smoothquant or quarot"
    if chosen.range == "static":
        problem = f"{method.name} simulates activations that are rounded per token"
        raise UserError("activation.range", problem, f"Use activation.range=token, {remedy}")
    if chosen.symmetric:
        problem = f"{method.name} simulates activations on asymmetric grids"
        raise UserError("activation.symmetric", problem, f"Use activation.symmetric=false, {remedy}")


def check_structure(method: Method, graph: ModelGraph, settings: Settings) -> None:
    """Checks that the model has what ``method`` and the bit-config act on.

    Raises:
        UserError: it has no decoder, or a norm in its residual stream.
    """
    name = settings.model.name
    if settings.kvbits != FULL_PRECISION and not graph.decoder:
        problem = f"{name} has no decoder, hence no key-value cache to keep at {settings.kvbits} bits"
        raise UserError("kvbits", problem, f"Use kvbits={FULL_PRECISION}")
    if method.needs.rotates_streams and not graph.rotatable:
        problem = (
            f"{method.name} rotates residual streams, and that of {name} goes through a norm after every block, which "
            "no rotation passes"
        )
        raise UserError(
            "method", problem, "Use a method that transforms inputs of linears, e.g. method=flatquant or awq"
        )
    if method.needs.decoder and not graph.decoder:
        problem = f"{method.name} learns from what a decoder writes, and {name} has none"
        raise UserError("method", problem, "Use a method that learns block by block, e.g. method=gptq, awq or tesseraq")
