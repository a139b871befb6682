"""GPTAQ: GPTQ whose target is what a linear gave at full precision on inputs at full precision.

Li et al., *GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration* (arXiv 2504.02692). GPTQ wants of
the rounded weight ``Q`` what ``W`` would give on the present input ``X``, which rounded predecessors have changed.
GPTAQ minimises ``||Q X - W X_fp||^2``, so that their errors are made up for as well.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.methods.base import Needs, Rounded
from src.methods.gptq import GPTQ, gptq
from src.methods.parameters import Strengths
from src.methods.parts.by_linear import check_names, number_of
from src.methods.workbench import Workbench
from src.models.graph import Linear
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class GPTAQ(GPTQ):
    """GPTAQ with the options of GPTQ.

    Attributes:
        strength: share of the predecessors' errors that is made up for, ``alpha`` of the authors' code; 0 is GPTQ. One
            for all linears, or by name; see :mod:`src.methods.parts.by_linear`.
    """

    strength: Strengths

    @property
    def needs(self) -> Needs:
        """Inside a block, too, inputs as its rounded linears give them, as in the authors' code."""
        return super().needs | Needs(statistics=frozenset({"cross_gram"}), sequential=True)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """As of any method.

        Raises:
            UserError: a strength is that of no linear, or a linear has none.
        """
        plan = super().plan(bench)
        if not isinstance(self.strength, float | int):
            planned = (path for path, spec in plan.items() if spec)
            check_names(self.strength, bench.graph.linears, planned, "method.strength")
        return plan

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """Codes that keep the linear's output, given ``stats.gram`` and ``stats.cross_gram``. See :meth:`Method.round`.

        Raises:
            UserError: as GPTQ's.
        """
        if stats is None or stats.gram is None or stats.cross_gram is None:
            raise ValueError("GPTAQ needs the Gram and the cross-Gram matrix of the linear's input")
        return gptq(
            W,
            stats.gram.to(W.device),
            spec,
            C=self._strength(stats.linear) * stats.cross_gram.to(W.device),
            damp=self.damp,
            block_size=self.block_size,
            act_order=self.act_order,
            static_groups=self.static_groups,
            search=self.range,
            passes=self.passes,
        )

    def _strength(self, linear: Linear | None) -> float:
        if isinstance(self.strength, float | int):
            return self.strength
        found = None if linear is None else number_of(linear, self.strength)
        if found is None:
            raise ValueError("strengths by name need statistics that say which linear they are told of")
        return found
