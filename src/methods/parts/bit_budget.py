"""Bits of layers under a budget: by integer programming, or by Algorithm 1 of myQASR (arXiv 2307.12659)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import block_diag, csr_array

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.base import Method
from src.methods.gptq import GPTQ
from src.methods.hqq import HQQ
from src.methods.rtn import RTN

_DECIMALS: Final = 1000  # of the smallest feasible amount
Choice = TypeVar("Choice")


def require_known_size(rounder: Method) -> None:
    """Raises UserError unless the packed size of what ``rounder`` makes follows from the grid alone."""
    if not isinstance(rounder, RTN | GPTQ | HQQ):
        problem = f"{getattr(rounder, 'name', rounder)!r} does not say how large its weights will be"
        raise UserError("method.rounder", problem, "Use method@method.rounder=rtn, gptq or hqq")


def stored_bytes(rounder: Method, spec: WeightSpec, rows: int, columns: int) -> int:
    """Bytes of a weight [rows, columns] that ``rounder`` rounds to ``spec``, packed."""
    grouped = spec.columns_per_group(columns) < columns
    ordered = isinstance(rounder, GPTQ) and rounder.act_order and not rounder.static_groups and grouped
    return spec.stored_bytes(rows, columns, real_zeros=isinstance(rounder, HQQ)) + (4 * columns if ordered else 0)


@dataclass(frozen=True)
class Bound(Generic[Choice]):
    """No more than so much of something that every layer takes a part of.

    Attributes:
        field: the setting that says how much.
        amount: how much, in units.
        unit: of ``amount``, of which ``fixed`` and ``uses`` are in ones.
        fixed: what is taken whatever is chosen.
        uses: what a layer takes, by layer and choice.
    """

    field: str
    amount: float
    unit: int
    fixed: float
    uses: Mapping[str, Mapping[Choice, float]]

    @property
    def least(self) -> float:
        """The smallest amount that can be met."""
        return (self.fixed + sum(min(by_choice.values()) for by_choice in self.uses.values())) / self.unit

    def spent(self, chosen: Mapping[str, Choice]) -> float:
        """What the chosen take, in units."""
        return (self.fixed + sum(self.uses[layer][choice] for layer, choice in chosen.items())) / self.unit

    def require_room(self, hint: str = "") -> None:
        """Raises UserError, with the ``hint``, unless the amount can be met."""
        if self.amount < self.least:
            smallest = math.ceil(self.least * _DECIMALS) / _DECIMALS
            problem = f"{self.amount:g} is too small for the fewest bits everywhere"
            feasible = f"The smallest feasible one is {self.field}={smallest}"
            raise UserError(self.field, problem, f"{feasible}; {hint}" if hint else feasible)


def cheapest(costs: Mapping[str, Mapping[Choice, float]], bounds: Sequence[Bound[Choice]]) -> dict[str, Choice]:
    """What costs least in sum and fits, a choice a layer: a multiple-choice knapsack, solved exactly by HiGHS.

    Args:
        costs: by layer and choice.
        bounds: all to be met.

    Raises:
        ValueError: nothing meets them.
    """
    choices = [(layer, choice) for layer, by_choice in costs.items() for choice in by_choice]
    cost = np.array([costs[layer][choice] for layer, choice in choices])
    uses = np.array([[each.uses[layer][choice] / each.unit for layer, choice in choices] for each in bounds])
    room = [each.amount - each.fixed / each.unit for each in bounds]
    one_each = block_diag([np.ones((1, len(by_choice))) for by_choice in costs.values()])
    found = milp(
        cost / max(cost.max(), 1e-300),  # the solver's tolerances are absolute
        integrality=np.ones(len(choices)),
        bounds=(0, 1),
        constraints=[LinearConstraint(csr_array(uses), ub=room), LinearConstraint(one_each, 1, 1)],
        options={"mip_rel_gap": 0},
    )
    if found.x is None:
        raise ValueError(f"nothing meets {', '.join(each.field for each in bounds)}: {found.message}")
    return {layer: choice for (layer, choice), taken in zip(choices, found.x, strict=True) if taken > 0.5}


def allocate(order: Sequence[str], sizes: Mapping[str, Mapping[int, int]], budget: float) -> dict[str, int]:
    """Bits of every layer: all start at the largest width and go down one width each, in ``order``, round by round.

    So no two layers are ever more than one width apart, the paper's uniformity constraint. The first allocation that
    fits is returned, hence a larger budget never gives any layer fewer bits.

    Args:
        order: the layers, those that lose bits first in front.
        sizes: bytes by layer and width; every layer has the same widths, and loses bytes with bits.
        budget: bytes all layers may take together.

    Returns:
        Bits by layer; where even the smallest widths do not fit, these.
    """
    bits: dict[str, int] = {}
    for bits in _descent(order, sorted(next(iter(sizes.values())), reverse=True)):
        if sum(sizes[layer][width] for layer, width in bits.items()) <= budget:
            break
    return dict(bits)


def smallest_size(sizes: Mapping[str, Mapping[int, int]]) -> int:
    """Bytes of all layers at their smallest width: the smallest feasible budget."""
    return sum(min(by_width.values()) for by_width in sizes.values())


def _descent(order: Sequence[str], widths: Sequence[int]) -> Iterator[dict[str, int]]:
    """Every allocation on the way from ``widths[0]`` everywhere to ``widths[-1]`` everywhere; one dict, changed."""
    bits = dict.fromkeys(order, widths[0])
    yield bits
    for width in widths[1:]:
        for layer in order:
            bits[layer] = width
            yield bits
