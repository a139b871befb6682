"""Checks of method parameters, with the errors a user reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.errors import UserError
from src.settings import FULL_PRECISION, Settings

if TYPE_CHECKING:
    from src.methods.base import Method

from src.errors import did_you_mean
from src.quant.grid import RANGES


def check_range(value: object) -> None:
    """Raises UserError unless ``value`` names a way to choose the ends of a grid."""
    if value not in RANGES:
        raise UserError("method.range", f"{value!r} is not a way to choose the grid", did_you_mean(str(value), RANGES))


def check_flag(field: str, value: object) -> None:
    """Raises UserError unless ``value`` is true or false."""
    if not isinstance(value, bool):
        raise UserError(f"method.{field}", f"{value!r} is neither true nor false", "Use true or false")


def check_positive_integer(field: str, value: object) -> None:
    """Raises UserError unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"method.{field}", f"{value!r} is not a positive integer", f"Use e.g. method.{field}=128")


def check_fraction(field: str, value: object) -> None:
    """Raises UserError unless ``value`` is a number above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        remedy = f"Use a number above 0 and at most 1, e.g. method.{field}=0.01"
        raise UserError(f"method.{field}", f"{value!r} is out of range", remedy)


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
