"""Bits where they matter: the plan of grids that costs least in the end and fits a budget.

What every weight costs on every grid follows from one backward pass (:mod:`src.methods.parts.sensitivity`) and from
what the rounder makes of it; which grids cost least in sum is an integer program, solved exactly
(:func:`~src.methods.parts.bit_budget.cheapest`), as in HAWQ-V3 (Yao et al., arXiv 2011.10680). The budget is of bytes
of the whole file, of bytes that the reference utterance moves, of its bit operations, or of several of these.
Embedding, head and front-end take part wherever they are rounded (``scope=everything``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from src.calib.capture import Calibration
from src.calib.end_inputs import end_statistics
from src.calib.statistics import measure
from src.errors import UserError
from src.lowbit.granularity import PER_CHANNEL, WeightSpec
from src.machine.progress import progress
from src.methods.base import Method, Needs
from src.methods.parameters import CodeBits
from src.methods.parts.bit_budget import Bound, cheapest, require_known_size, stored_bytes
from src.methods.parts.delegating import Delegating
from src.methods.parts.sensitivity import measure_sensitivities
from src.methods.workbench import Workbench
from src.quant.checkpoint import leftover_tensors
from src.quant.ends import flat_weight
from src.quant.link_statistics import LinkStatistics
from src.quant.structure import Edit, stored_edits

log = logging.getLogger(__name__)

_MILLION, _BILLION = 10**6, 10**9

Amount = Annotated[
    float | None, Field(gt=0, allow_inf_nan=False, description="a number above 0, or null", examples=["15"])
]
GroupSize = Annotated[int, Field(ge=-1, description="a positive integer, or -1: a scale a channel", examples=["32"])]
Sizes = dict[str, dict[WeightSpec, int]]  # bytes of every weight by path, on every grid there is to choose from


@dataclass(frozen=True)
class Budget(Delegating):
    """Chooses the grid of every weight, to which ``rounder`` then rounds; ends are rounded by ``ends``, as always.

    Attributes:
        rounder: rounds the weights of the blocks; one whose packed size follows from the grid alone: rtn, gptq or hqq.
        megabytes: 10^6 bytes that the model's file may take; without any bound, what it takes at the bit-config.
        io_megabytes: 10^6 bytes that the reference utterance (``profile``) may move.
        gbops: 10^9 bit operations that it may take.
        widths: bits to choose from, 2 to 8.
        group_sizes: columns a scale to choose from, those that divide a weight's; None: the bit-config's.
        by_clip: leave out the silence behind short clips where half of the model's window holds them.
    """

    rounder: Method
    megabytes: Amount
    io_megabytes: Amount
    gbops: Amount
    widths: Annotated[
        tuple[CodeBits, ...], Field(min_length=1, description="a list of integers from 2 to 8", examples=["[2,3,4,8]"])
    ]
    group_sizes: Annotated[
        tuple[GroupSize, ...] | None,
        Field(min_length=1, description="a list of group sizes, or null", examples=["[32,64,-1]"]),
    ]
    by_clip: bool

    @model_validator(mode="after")
    def _sizes_are_known(self) -> Self:
        require_known_size(self.rounder)
        if self.group_sizes is not None and 0 in self.group_sizes:
            raise UserError("method.group_sizes", "0 columns cannot share a scale", "Use positive ones, or -1")
        return self

    @property
    def inner(self) -> Method:
        return self.rounder

    @property
    def needs(self) -> Needs:
        """Gradients are of the clips, and the words they are for are drawn."""
        priced = self.io_megabytes is not None or self.gbops is not None
        return super().needs | Needs(clips=True, seed=True, reference=priced, decoder=True)

    def check(self, module: nn.Module, specs: Mapping[str, WeightSpec]) -> None:
        """Raises UserError: the file would be too large even if a transform added nothing to it."""
        super().check(module, specs)
        if self.megabytes is not None:
            _file(self.megabytes, module, self._sizes(module, specs), ()).require_room(_hint(module, specs))

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """The bit-config with the grid of every weight in scope replaced, those of the ends too.

        Raises:
            UserError: a budget is too small even for the grids that take least of it.
        """
        plan = self.rounder.plan(bench)
        specs = {path: spec for path, spec in plan.items() if spec is not None} | bench.ends
        if not specs:
            return plan
        sizes = self._sizes(bench.module, specs)
        bounds = self._bounds(bench, specs, sizes)
        costs = self._costs(bench, sizes)
        chosen = cheapest(costs, bounds)
        for bound in bounds:
            log.info("budget: %s %.4g of %.4g", bound.field, bound.spent(chosen), bound.amount)
        bench.expected_nats = sum(costs[path][spec] for path, spec in chosen.items())
        log.info("budget: rounding %d weights so should cost %.4g nats a token", len(chosen), bench.expected_nats)
        return plan | chosen

    def _sizes(self, module: nn.Module, specs: Mapping[str, WeightSpec]) -> Sizes:
        """What there is to choose from, and the bytes that it takes."""
        sizes: Sizes = {}
        for path, spec in specs.items():
            rows, columns = flat_weight(module, path).shape
            divide = [size for size in self.group_sizes or () if size == PER_CHANNEL or columns % size == 0]
            grids = [replace(spec, bits=b, group_size=g) for g in divide or [spec.group_size] for b in self.widths]
            sizes[path] = {grid: stored_bytes(self.rounder, grid, rows, columns) for grid in grids}
        return sizes

    def _bounds(self, bench: Workbench, specs: Mapping[str, WeightSpec], sizes: Sizes) -> list[Bound[WeightSpec]]:
        """What the parameters allow; where they say nothing, the size at the bit-config. Raises UserError."""
        bounds = []
        if self.megabytes is not None:
            bounds.append(_file(self.megabytes, bench.module, sizes, bench.edits))
        if self.needs.reference:
            bounds += self._reference(bench, sizes)
        if bounds:
            for bound in bounds:
                bound.require_room(_hint(bench.module, specs))
            return bounds
        shapes = {path: flat_weight(bench.module, path).shape for path in specs}
        own = sum(stored_bytes(self.rounder, spec, *shapes[path]) for path, spec in specs.items())
        bound = Bound("bytes of weights", own, 1, 0, sizes)
        if bound.amount < bound.least:
            problem = f"{list(self.widths)} are all too large for a model of the bit-config's size"
            raise UserError("method.widths", problem, "Add smaller ones, or set method.megabytes")
        return [bound]

    def _reference(self, bench: Workbench, sizes: Sizes) -> Iterator[Bound[WeightSpec]]:
        """Bounds of what the reference utterance takes: so much at 16 bits, and less by what every grid saves."""
        if bench.reference is None:
            raise ValueError("what the reference utterance takes is not known")
        at_16_bits = bench.reference(bench.edits, {})
        taken = {
            path: {grid: bench.reference(bench.edits, {path: (grid, size)}) for grid, size in of.items()}
            for path, of in sizes.items()
        }
        for field, amount, unit, kind in (
            ("io_megabytes", self.io_megabytes, _MILLION, attrgetter("memory_io_bytes")),
            ("gbops", self.gbops, _BILLION, attrgetter("bops")),
        ):
            if amount is not None:
                fixed = kind(at_16_bits)
                uses = {path: {grid: kind(each) - fixed for grid, each in of.items()} for path, of in taken.items()}
                yield Bound(f"method.{field}", amount, unit, fixed, uses)

    def _costs(self, bench: Workbench, sizes: Sizes) -> dict[str, dict[WeightSpec, float]]:
        """Nats a token that rounding costs, by path and grid."""
        calibration, graph = bench.calibration, bench.graph
        if calibration is None:
            raise ValueError("sensitivities need calibration clips")
        # What is fitted to clips costs more on others: rounded by one half of them, judged by the other.
        judged, rounded_by = (calibration.part(range(first, len(calibration.ids), 2)) for first in (0, 1))
        statistics = self._statistics(bench, sizes, rounded_by if rounded_by.ids else judged)
        matrices = [path for path in sizes if path not in (graph.embedding, graph.head)]
        heard = judged.in_half(bench.speech) if self.by_clip else judged
        sensitivities = measure_sensitivities(bench.speech, heard, matrices, seed=bench.seed)
        tokens = len(sensitivities.states)
        costs: dict[str, dict[WeightSpec, float]] = {}
        with torch.no_grad():
            for path, grids in progress(list(sizes.items()), "costs, weights"):
                W = flat_weight(bench.module, path)[sensitivities.rows(path)].float()
                costs[path] = {}
                for grid in grids:
                    rounded = self.rounder.round(W.clone(), grid, statistics.get(path)).weight
                    costs[path][grid] = sensitivities.cost(path, W - rounded.dequantize()) / tokens
        return costs

    def _statistics(
        self, bench: Workbench, paths: Collection[str], calibration: Calibration
    ) -> dict[str, LinkStatistics]:
        """What the rounder reads of the inputs of every weight, in the model as it is."""
        needed = self.rounder.needs.statistics
        if not needed:
            return {}
        found = measure(bench.speech, calibration, gram=True)
        linears = {each.path: each for each in bench.graph.linears if each.path in paths}
        of_each = {path: found[bench.graph.link_of(path).name].of(each) for path, each in linears.items()}
        if bench.ends:
            of_each |= end_statistics(bench.speech, calibration, bench.ends)
        if "cross_gram" in needed:  # nothing is rounded yet
            of_each = {
                path: replace(each, cross_gram=None if each.gram is None else torch.zeros_like(each.gram))
                for path, each in of_each.items()
            }
        return of_each


def _file(megabytes: float, module: nn.Module, sizes: Sizes, edits: Sequence[Edit]) -> Bound[WeightSpec]:
    return Bound("method.megabytes", megabytes, _MILLION, _other_bytes(module, sizes, edits), sizes)


def _hint(module: nn.Module, paths: Iterable[str]) -> str:
    """What else would make room."""
    ends = any(not isinstance(module.get_submodule(path), nn.Linear) for path in paths)
    return "" if ends else "scope=everything rounds embedding, head and front-end too"


def _other_bytes(module: nn.Module, paths: Collection[str], edits: Sequence[Edit]) -> int:
    """At most what a file takes beside the codes of the weights at ``paths``: tensors at 16 bits, and its header."""
    leftovers = leftover_tensors(module, paths)
    tensors = sum(each.numel() * min(each.element_size(), 2) for each in leftovers.values())
    header = sum(len(name) + _TENSOR for name in leftovers) + sum(4 * len(path) + _WEIGHT for path in paths)
    return tensors + header + len(json.dumps(stored_edits(edits)))


_TENSOR, _WEIGHT = 100, 600  # bytes in a header, beside names: of a tensor, and of a weight's tensors and description
