"""Methods that prepare the model and leave the rounding to another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from src.errors import UserError
from src.methods.base import Method, Rounded
from src.quant.granularity import WeightSpec
from src.quant.link_statistics import LinkStatistics

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench


@dataclass(frozen=True)
class Composed(Method):
    """Transforms the model, then does as ``rounder`` does.

    Attributes:
        rounder: a method that does not transform the model itself.
    """

    rounder: Method

    def __post_init__(self) -> None:
        rounder = self.rounder
        if not isinstance(rounder, Method) or rounder.transforms or not rounder.quantizes:
            problem = f"{getattr(rounder, 'name', rounder)!r} does not only round weights"
            raise UserError("method.rounder", problem, "Use method@method.rounder=rtn or gptq")

    @property
    def transforms(self) -> bool:
        """True."""
        return True

    @property
    def statistics(self) -> frozenset[str]:
        """What the rounder reads."""
        return self.rounder.statistics

    @property
    def uses_calibration(self) -> bool:
        """Whether the rounder does."""
        return self.rounder.uses_calibration

    @property
    def fits_blocks(self) -> bool:
        """Whether the rounder does."""
        return self.rounder.fits_blocks

    @property
    def runs_blocks(self) -> bool:
        """Whether the rounder does."""
        return self.rounder.runs_blocks

    @property
    def uses_targets(self) -> bool:
        """Whether the rounder does."""
        return self.rounder.uses_targets

    @property
    def weighs_tokens(self) -> bool:
        """Whether the rounder does."""
        return self.rounder.weighs_tokens

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """The rounder's. See :meth:`Method.plan`."""
        return self.rounder.plan(bench)

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        """The rounder's. See :meth:`Method.token_weights`."""
        return self.rounder.token_weights(bench, task)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """The rounder's. See :meth:`Method.fit_block`."""
        return self.rounder.fit_block(bench, task)

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """The rounder's. See :meth:`Method.round`."""
        return self.rounder.round(W, spec, stats)


@dataclass(frozen=True)
class Equalisation(Composed):
    """Base of the methods that move scales between activations and weights before ``rounder`` rounds these."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounder.fits_blocks:
            problem = f"{self.rounder.name!r} fits blocks itself and would undo the scales"
            raise UserError("method.rounder", problem, "Use method@method.rounder=rtn or gptq")

    @property
    def uses_calibration(self) -> bool:
        """True: scales follow from the activations."""
        return True
