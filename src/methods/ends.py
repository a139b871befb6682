"""The rounder of a model's ends: a method that rounds single weights, from no more than Gram matrices."""

from __future__ import annotations

from src.errors import UserError
from src.methods.base import Method, Needs
from src.methods.build import build_method
from src.settings import Settings


def end_rounder(settings: Settings) -> Method | None:
    """What rounds embedding, head and front-end; None where they stay at 16 bits.

    Raises:
        UserError: it is no method, or does more than to round a weight into codes on grids.
    """
    if settings.ends is None:
        return None
    method = build_method(settings.ends, "ends")
    needs = method.needs
    if not method.quantizes or needs != Needs(statistics=needs.statistics & {"gram"}, propagation=needs.propagation):
        problem = f"{method.name} does more than to round single weights, or leaves them at 16 bits"
        raise UserError("ends", problem, "Use method@ends=rtn, or gptq or gptq_mse")
    return method
