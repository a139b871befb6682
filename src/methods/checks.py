"""Checks of method parameters, with the errors a user reads."""

from __future__ import annotations

from src.errors import UserError, did_you_mean
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
