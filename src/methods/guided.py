"""GuidedQuant: weights are rounded by what their errors cost in the end, not by what they change in the next tensor.

Kim et al., *GuidedQuant: Large Language Model Quantization via Exploiting End Loss Guidance* (arXiv 2505.07004). To
second order, errors ``dz`` of a linear's outputs cost ``sum (dz dL/dz)^2`` over rows and output channels, for which a
channel's Gram matrix is ``X^T diag((dL/dz)^2) X``. Channels are split in groups, each with the mean of its matrices,
and any method that rounds by a Gram matrix rounds each group by its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import PER_CHANNEL, QuantizedWeight, WeightSpec
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, Fraction
from src.methods.parts.delegating import Delegating
from src.methods.parts.end_loss import output_saliencies
from src.methods.workbench import Workbench
from src.quant.extras import Extra
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class GuidedQuant(Delegating):
    """Weights rows by gradients of the end loss, and leaves the rounding to ``rounder``.

    Attributes:
        rounder: a method that rounds a linear by its Gram matrix, and nothing before.
        groups: parts that a linear's output channels are split in; a linear of fewer channels has one each.
        share: of a group's matrix in the one that its rounder is told; the rest is the linear's own, of the same trace.
        by_clip: leave out the silence behind short clips where half of the model's window holds them.
    """

    rounder: Method
    groups: Count
    share: Fraction
    by_clip: bool

    @model_validator(mode="after")
    def _rounder_reads_grams(self) -> Self:
        needs = self.rounder.needs
        if needs.transforms or needs.fits_blocks or "gram" not in needs.statistics:
            problem = f"{self.rounder.name} does not only round weights by a Gram matrix"
            raise UserError("method.rounder", problem, "Use method@method.rounder=gptq or gptaq")
        return self

    @property
    def inner(self) -> Method:
        return self.rounder

    @property
    def needs(self) -> Needs:
        """Gradients are of the model before it is rounded, whatever ``calib.propagate`` says."""
        return super().needs | Needs(clips=True, token_weights=True, decoder=True)

    def output_weights(self, bench: Workbench) -> Mapping[str, Sequence[Tensor]]:
        """Squared gradients of every planned linear; see :func:`output_saliencies`.

        Raises:
            UserError: every group would need an order of columns of its own.
        """
        if bench.calibration is None:
            raise ValueError("gradients need calibration clips")
        planned = {path: spec for path, spec in bench.plan.items() if spec}
        grouped = any(spec.group_size != PER_CHANNEL for spec in planned.values())
        if self.groups > 1 and grouped and Extra.ORDER in self.rounder.needs.stores:
            problem = f"{self.rounder.name} stores an order of columns, which would be another one for each group"
            raise UserError("method.groups", problem, "Use method.groups=1, or method.rounder.act_order=false")
        return output_saliencies(bench.speech, bench.calibration, planned, self.groups, by_clip=self.by_clip)

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """What the rounder makes of every group of output channels, joined. See :meth:`Method.round`.

        Raises:
            UserError: one weight cannot hold what the rounder made of the groups, or as the rounder's.
        """
        if stats is None:
            raise ValueError("a Gram matrix of every group of output channels is needed")
        groups = [mixed(each, stats, self.share) for each in stats.groups()]
        parts = zip(W.tensor_split(len(groups)), groups, strict=True)
        rounded = [self.rounder.round(rows, spec, own) for rows, own in parts]
        try:
            weight = QuantizedWeight.joined([each.weight for each in rounded])
        except ValueError as error:
            problem = f"one weight cannot hold {len(groups)} groups as {self.rounder.name} makes them: {error}"
            raise UserError("method.groups", problem, "Use method.groups=1") from None
        return Rounded(weight, tuple(dict.fromkeys(note for each in rounded for note in each.notes)))


def mixed(guided: LinkStatistics, plain: LinkStatistics, share: float) -> LinkStatistics:
    """``guided`` with the Gram matrix ``share H + (1 - share) H_plain``, its ``H`` scaled to the trace of the other.

    Of a few clips, a few rows have most of the squared gradients: too few to tell what all others may not lose. The
    cross-Gram matrix, where there is one, is mixed alike.
    """
    if guided.gram is None or plain.gram is None:
        raise ValueError("a Gram matrix of every group of output channels is needed")
    traces = plain.gram.trace(), guided.gram.trace()
    scale = share * float(traces[0] / traces[1]) if traces[1] > 0 else share
    gram, cross_gram = (
        None if own is None or other is None else scale * own + (1 - share) * other
        for own, other in ((guided.gram, plain.gram), (guided.cross_gram, plain.cross_gram))
    )
    return replace(guided, gram=gram, cross_gram=cross_gram)
