"""Methods that prepare the model and leave the rounding to another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.base import Method, Needs, Rounded
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

    @model_validator(mode="after")
    def _rounder_only_rounds(self) -> Self:
        if self.rounder.needs.transforms or not self.rounder.quantizes:
            problem = f"{self.rounder.name!r} does not only round weights"
            raise UserError("method.rounder", problem, "Use method@method.rounder=rtn or gptq")
        return self

    @property
    def needs(self) -> Needs:
        return self.rounder.needs | Needs(transforms=True)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        return self.rounder.plan(bench)

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        return self.rounder.token_weights(bench, task)

    def rare_rows(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        return self.rounder.rare_rows(bench, task)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        return self.rounder.fit_block(bench, task)

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        return self.rounder.round(W, spec, stats)


@dataclass(frozen=True)
class Equalisation(Composed):
    """Base of the methods that move scales between activations and weights before ``rounder`` rounds these.

    Attributes:
        reads_activations: whether the scales follow from the activations.
    """

    reads_activations: ClassVar[bool] = True

    @model_validator(mode="after")
    def _rounder_keeps_scales(self) -> Self:
        if self.rounder.needs.rescales:
            problem = f"{self.rounder.name!r} learns scales itself and would undo these"
            raise UserError("method.rounder", problem, "Use method@method.rounder=rtn, gptq or autoround")
        return self

    @property
    def needs(self) -> Needs:
        return super().needs | Needs(clips=self.reads_activations)
