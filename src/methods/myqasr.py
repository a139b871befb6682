"""myQASR: mixed precision for one user under a memory budget, from a few unlabelled clips.

Fish et al., *A Model for Every User and Budget: Label-Free and Personalized Mixed-Precision Quantization* (arXiv
2307.12659). A layer's sensitivity is the median magnitude of its output on the user's clips, which are the calibration
clips here (``calib.dataset``); layers lose bits one after the other in that order until the model fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import CodeBits
from src.methods.parts.bit_budget import allocate, require_known_size, smallest_size, stored_bytes
from src.methods.parts.magnitudes import output_magnitudes
from src.methods.workbench import Workbench
from src.quant.link_statistics import LinkStatistics

Budget = Annotated[
    float | None, Field(ge=0, allow_inf_nan=False, description="a number of at least 0, or null", examples=["4"])
]
MEGABYTE = 10**6


@dataclass(frozen=True)
class MyQASR(Method):
    """Chooses every linear's bits, which ``rounder`` then rounds to.

    The budget is ``budget_mb`` or ``budget_bits``; without either it is the size of the model at the bit-config's
    ``wbits`` and ``extra_bits`` more.

    Attributes:
        rounder: rounds the weights; one whose packed size follows from the bits alone: rtn, gptq or hqq.
        budget_mb: 10^6 bytes the packed linears may take together, or None.
        budget_bits: bits a weight of theirs may take on average, scales and zero points included, or None.
        extra_bits: bits a weight may take on average beyond the bit-config's, at least 0.
        widths: bits to choose from, 2 to 8.
        sensitivity: which figure of the magnitudes of a linear's outputs orders the linears.
        first: whether the largest or the smallest sensitivity loses bits first.
    """

    rounder: Method
    budget_mb: Budget
    budget_bits: Budget
    extra_bits: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="a number of at least 0", examples=["0.5"])
    ]
    widths: Annotated[
        tuple[CodeBits, ...], Field(min_length=1, description="a list of integers from 2 to 8", examples=["[2,3,4,8]"])
    ]
    sensitivity: Literal["median", "mean", "largest"]
    first: Literal["largest", "smallest"]

    @model_validator(mode="after")
    def _sizes_are_known(self) -> Self:
        require_known_size(self.rounder)
        if self.budget_mb is not None and self.budget_bits is not None:
            raise UserError("method.budget_bits", "there is a budget_mb too", "Set one of the two to null")
        return self

    @property
    def needs(self) -> Needs:
        """Sensitivities are measured on the clips."""
        return self.rounder.needs | Needs(clips=True)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """The bit-config with the bits of every linear in scope replaced.

        Raises:
            UserError: the budget is too small even at the smallest width, or outputs are not finite.
        """
        specs = {path: spec for path, spec in self.rounder.plan(bench).items() if spec is not None}
        if not specs:
            return dict(bench.plan)
        sizes = {path: self._sizes(bench, path, spec) for path, spec in specs.items()}
        budget = self._budget(bench, specs)
        self._check_feasible(bench, sizes, budget)
        bits = allocate(self._order(bench, list(specs)), sizes, budget)
        return {**bench.plan, **{path: replace(spec, bits=bits[path]) for path, spec in specs.items()}}

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """The rounder's codes. See :meth:`Method.round`."""
        return self.rounder.round(W, spec, stats)

    def _order(self, bench: Workbench, paths: list[str]) -> list[str]:
        """``paths``, those that lose bits first in front; ties stay in execution order."""
        if bench.calibration is None:
            raise ValueError("myQASR needs calibration clips")
        magnitudes = output_magnitudes(bench.speech, bench.calibration, paths)
        for path, each in magnitudes.items():
            if not math.isfinite(each.largest):
                raise UserError("calib", f"{path} gives NaN or infinity", "Check the model's weights and the clips")
        figures = {path: getattr(each, self.sensitivity) for path, each in magnitudes.items()}
        return sorted(paths, key=figures.__getitem__, reverse=self.first == "largest")

    def _sizes(self, bench: Workbench, path: str, spec: WeightSpec) -> dict[int, int]:
        """Bytes of the packed weight at ``path`` by width."""
        return {bits: self._stored_bytes(bench, path, replace(spec, bits=bits)) for bits in self.widths}

    def _stored_bytes(self, bench: Workbench, path: str, spec: WeightSpec) -> int:
        return stored_bytes(self.rounder, spec, *bench.module.get_parameter(f"{path}.weight").shape)

    def _budget(self, bench: Workbench, specs: Mapping[str, WeightSpec]) -> float:
        """Bytes the packed linears may take together."""
        if self.budget_mb is not None:
            return round(self.budget_mb * MEGABYTE)
        weights = _weights(bench, specs)
        if self.budget_bits is not None:
            return self.budget_bits * weights / 8
        return sum(self._stored_bytes(bench, *each) for each in specs.items()) + self.extra_bits * weights / 8

    def _check_feasible(self, bench: Workbench, sizes: Mapping[str, Mapping[int, int]], budget: float) -> None:
        least = smallest_size(sizes)
        if budget >= least:
            return
        in_bits = self.budget_bits is not None
        field, unit = ("budget_bits", _weights(bench, sizes) / 8) if in_bits else ("budget_mb", float(MEGABYTE))
        problem = f"{budget / unit:g} is too small for {min(self.widths)} bits everywhere"
        smallest = math.ceil(least / unit * _DECIMALS) / _DECIMALS
        raise UserError(f"method.{field}", problem, f"The smallest feasible budget is method.{field}={smallest}")


_DECIMALS = 10**6  # of the smallest feasible budget: a byte, as megabytes


def _weights(bench: Workbench, paths: Mapping[str, object]) -> int:
    return sum(bench.module.get_parameter(f"{path}.weight").numel() for path in paths)
