"""What the blocks of a model, and the linears inside them, are fed while it is quantized."""

from __future__ import annotations

from src.errors import UserError
from src.methods.base import Method
from src.settings import Settings


def sees_quantized(method: Method, settings: Settings) -> bool:
    """Whether blocks see inputs from quantized predecessors."""
    return settings.calib.propagate == "quantized" and method.needs.propagation


def link_by_link(method: Method, settings: Settings) -> bool:
    """Whether, inside a block too, linears see inputs from what was rounded before them."""
    chosen = settings.calib.sequential
    return sees_quantized(method, settings) and (chosen == "link" or (chosen == "auto" and method.needs.sequential))


def check_propagation(method: Method, settings: Settings) -> None:
    """Checks that inputs from quantized predecessors are there for what needs them.

    Raises:
        UserError: the method corrects what rounding did to them, or ``calib.sequential`` asks for more of them.
    """
    if settings.calib.propagate == "quantized":
        return
    if "cross_gram" in method.needs.statistics:
        problem = f"{method.name} corrects what rounding its predecessors did to a linear's input"
        raise UserError("calib.propagate", problem, "Use calib.propagate=quantized, or method=gptq")
    if settings.calib.sequential == "link":
        problem = "no block sees inputs from rounded linears with calib.propagate=fp"
        raise UserError("calib.sequential", problem, "Use calib.propagate=quantized, or leave it at auto")
