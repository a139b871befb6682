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
from src.methods.parameters import Strength
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class GPTAQ(GPTQ):
    """GPTAQ with the options of GPTQ.

    Attributes:
        strength: share of the predecessors' errors that is made up for, ``alpha`` of the authors' code; 0 is GPTQ.
    """

    strength: Strength

    @property
    def needs(self) -> Needs:
        """Inside a block, too, inputs as its rounded linears give them, as in the authors' code."""
        return super().needs | Needs(statistics=frozenset({"cross_gram"}), sequential=True)

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
            C=self.strength * stats.cross_gram.to(W.device),
            damp=self.damp,
            block_size=self.block_size,
            act_order=self.act_order,
            static_groups=self.static_groups,
            search=self.range,
            passes=self.passes,
        )
