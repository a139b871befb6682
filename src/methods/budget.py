"""Bits where they matter: the plan of grids that costs least in the end and fits a budget of bytes.

What every weight costs at every width follows from one backward pass (:mod:`src.methods.parts.sensitivity`) and from
what the rounder makes of it; which widths cost least in sum is an integer program, solved exactly
(:func:`~src.methods.parts.bit_budget.cheapest`), as in HAWQ-V3 (Yao et al., arXiv 2011.10680). The budget is the whole
file's: embedding, head and front-end take part wherever they are rounded (``scope=everything``).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from src.calib.capture import Calibration
from src.calib.end_inputs import end_statistics
from src.calib.statistics import measure
from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.machine.progress import progress
from src.methods.base import Method, Needs
from src.methods.parameters import CodeBits
from src.methods.parts.bit_budget import cheapest, require_known_size, smallest_size, stored_bytes
from src.methods.parts.delegating import Delegating
from src.methods.parts.sensitivity import measure_sensitivities
from src.methods.workbench import Workbench
from src.quant.checkpoint import leftover_tensors
from src.quant.ends import flat_weight
from src.quant.link_statistics import LinkStatistics
from src.quant.structure import stored_edits

log = logging.getLogger(__name__)

MEGABYTE = 10**6
_DECIMALS = 1000  # of the smallest feasible budget, in megabytes


@dataclass(frozen=True)
class Budget(Delegating):
    """Chooses the bits of every weight, which ``rounder`` then rounds to; ends are rounded by ``ends``, as always.

    Attributes:
        rounder: rounds the weights of the blocks; one whose packed size follows from the bits alone: rtn, gptq or hqq.
        megabytes: 10^6 bytes that the model's file may take; None: what it takes at the bit-config.
        widths: bits to choose from, 2 to 8.
        by_clip: leave out the silence behind short clips where half of the model's window holds them.
    """

    rounder: Method
    megabytes: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="a number above 0, or null", examples=["15"]),
    ]
    widths: Annotated[
        tuple[CodeBits, ...], Field(min_length=1, description="a list of integers from 2 to 8", examples=["[2,3,4,8]"])
    ]
    by_clip: bool

    @model_validator(mode="after")
    def _sizes_are_known(self) -> Self:
        require_known_size(self.rounder)
        return self

    @property
    def inner(self) -> Method:
        return self.rounder

    @property
    def needs(self) -> Needs:
        """Gradients are of the clips, and the words they are for are drawn."""
        return super().needs | Needs(clips=True, seed=True, decoder=True)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """The bit-config with the bits of every weight in scope replaced, those of the ends too.

        Raises:
            UserError: the budget is too small even at the smallest width.
        """
        plan = self.rounder.plan(bench)
        specs = {path: spec for path, spec in plan.items() if spec is not None} | bench.ends
        if not specs:
            return plan
        shapes = {path: flat_weight(bench.module, path).shape for path in specs}
        sizes = {
            path: {bits: stored_bytes(self.rounder, replace(spec, bits=bits), *shapes[path]) for bits in self.widths}
            for path, spec in specs.items()
        }
        budget = self._budget(bench, specs, sizes)
        costs = self._costs(bench, specs)
        bits = cheapest(costs, sizes, budget)
        spent = sum(sizes[path][width] for path, width in bits.items())
        log.info(
            "budget: %d weights take %d of %d bytes; their rounding should cost %.4g nats a token",
            len(bits),
            spent,
            budget,
            sum(costs[path][width] for path, width in bits.items()),
        )
        return plan | {path: replace(spec, bits=bits[path]) for path, spec in specs.items()}

    def _budget(
        self, bench: Workbench, specs: Mapping[str, WeightSpec], sizes: Mapping[str, Mapping[int, int]]
    ) -> float:
        """Bytes that the weights in ``specs`` may take together. Raises UserError."""
        least = smallest_size(sizes)
        if self.megabytes is None:
            shapes = {path: flat_weight(bench.module, path).shape for path in specs}
            budget: float = sum(stored_bytes(self.rounder, spec, *shapes[path]) for path, spec in specs.items())
            if budget < least:
                problem = f"{list(self.widths)} are all too large for a model of the bit-config's size"
                raise UserError("method.widths", problem, "Add smaller ones, or set method.megabytes")
            return budget
        others = _other_bytes(bench, specs)
        budget = self.megabytes * MEGABYTE - others
        if budget < least:
            problem = f"{self.megabytes:g} is too small for {min(self.widths)} bits everywhere"
            smallest = math.ceil((least + others) / MEGABYTE * _DECIMALS) / _DECIMALS
            remedy = f"The smallest feasible budget is method.megabytes={smallest}"
            more = "" if bench.ends else "; scope=everything rounds embedding, head and front-end too"
            raise UserError("method.megabytes", problem, remedy + more)
        return budget

    def _costs(self, bench: Workbench, specs: Mapping[str, WeightSpec]) -> dict[str, dict[int, float]]:
        """Nats a token that rounding costs, by path and width."""
        calibration, graph = bench.calibration, bench.graph
        if calibration is None:
            raise ValueError("sensitivities need calibration clips")
        # What is fitted to clips costs more on others: rounded by one half of them, judged by the other.
        judged, rounded_by = (calibration.part(range(first, len(calibration.ids), 2)) for first in (0, 1))
        statistics = self._statistics(bench, specs, rounded_by if rounded_by.ids else judged)
        matrices = [path for path in specs if path not in (graph.embedding, graph.head)]
        sensitivities = measure_sensitivities(bench.speech, judged, matrices, by_clip=self.by_clip, seed=bench.seed)
        tokens = len(sensitivities.states)
        costs: dict[str, dict[int, float]] = {}
        with torch.no_grad():
            for path, spec in progress(list(specs.items()), "costs, weights"):
                weight = flat_weight(bench.module, path)
                count = len(weight)
                rows = sensitivities.rows(path, count)
                W = weight[rows].float()
                costs[path] = {}
                for bits in self.widths:
                    rounded = self.rounder.round(W.clone(), replace(spec, bits=bits), statistics.get(path)).weight
                    costs[path][bits] = sensitivities.cost(path, rows, W - rounded.dequantize(), count) / tokens
        return costs

    def _statistics(
        self, bench: Workbench, specs: Mapping[str, WeightSpec], calibration: Calibration
    ) -> dict[str, LinkStatistics]:
        """What the rounder reads of the inputs of every weight, in the model as it is."""
        needed = self.rounder.needs.statistics
        if not needed:
            return {}
        found = measure(bench.speech, calibration, gram=True)
        linears = {each.path: each for each in bench.graph.linears if each.path in specs}
        of_each = {path: found[bench.graph.link_of(path).name].of(each) for path, each in linears.items()}
        if bench.ends:
            of_each |= end_statistics(bench.speech, calibration, bench.ends)
        if "cross_gram" in needed:  # nothing is rounded yet
            of_each = {
                path: replace(each, cross_gram=None if each.gram is None else torch.zeros_like(each.gram))
                for path, each in of_each.items()
            }
        return of_each


def _other_bytes(bench: Workbench, specs: Mapping[str, WeightSpec]) -> int:
    """At most what a file takes beside the codes of the weights in ``specs``: tensors at 16 bits, and its header."""
    leftovers = leftover_tensors(bench.module, specs)
    tensors = sum(each.numel() * min(each.element_size(), 2) for each in leftovers.values())
    header = sum(len(name) + _TENSOR for name in leftovers) + sum(4 * len(path) + _WEIGHT for path in specs)
    return tensors + header + len(json.dumps(stored_edits(bench.edits)))


_TENSOR, _WEIGHT = 100, 600  # bytes in a header, beside names: of a tensor, and of a weight's tensors and description
