"""Methods that are made of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.base import Method, Needs, Rounded, Transformed
from src.quant.link_statistics import LinkStatistics

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.tuning import Tuning
    from src.methods.workbench import Workbench


@dataclass(frozen=True)
class Delegating(Method):
    """Does in every hook what ``inner`` does; a subclass overrides those in which it does more, or something else."""

    @property
    def inner(self) -> Method:
        """The other method, which is a parameter of the subclass."""
        raise NotImplementedError

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    def check(self, module: nn.Module, specs: Mapping[str, WeightSpec]) -> None:
        self.inner.check(module, specs)

    def transform(self, bench: Workbench) -> Transformed:
        return self.inner.transform(bench)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        return self.inner.plan(bench)

    def output_weights(self, bench: Workbench) -> Mapping[str, Sequence[Tensor]]:
        return self.inner.output_weights(bench)

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        return self.inner.token_weights(bench, task)

    def rare_rows(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        return self.inner.rare_rows(bench, task)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        return self.inner.fit_block(bench, task)

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        return self.inner.round(W, spec, stats)

    def tune(self, bench: Workbench, tuning: Tuning) -> Mapping[str, QuantizedWeight]:
        return self.inner.tune(bench, tuning)
