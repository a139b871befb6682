"""Methods that prepare the model and leave the rounding to another one."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from src.errors import UserError
from src.methods.base import Method, Needs
from src.methods.parts.delegating import Delegating


@dataclass(frozen=True)
class Composed(Delegating):
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
    def inner(self) -> Method:
        return self.rounder

    @property
    def needs(self) -> Needs:
        return super().needs | Needs(transforms=True)


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
