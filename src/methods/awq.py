"""AWQ: weights are scaled by how large the activations are that they meet, then clipped, then rounded.

Lin et al., *AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration* (arXiv 2306.00978), eqs.
(4) and (5) in their symbols: ``s = s_X^r`` with ``s_X = mean |X|`` and ``r`` by grid search, so that the error of
``Q(W diag(s)) diag(s)^-1 X`` is least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.calib.task import BlockTask
from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.machine.progress import progress
from src.methods.base import Needs, Rounded, Transformed
from src.methods.parameters import Count, Fraction
from src.methods.parts.clip_search import clip_limits, clipped
from src.methods.parts.compose import Equalisation
from src.methods.parts.equalise import (
    activation_aware_scales,
    best,
    gram_losses,
    relative_weight_means,
    scaled_and_rounded,
)
from src.methods.parts.fold import fold_scale
from src.methods.parts.links import Feeds, choose_links
from src.methods.parts.trial import Trial, inner_probe, losses_by_link
from src.methods.workbench import Workbench
from src.models.graph import Link
from src.quant.link_statistics import LinkStatistics

NEVER_CLIPPED = ("q_proj", "k_proj")  # "due to qk bmm, it is hard to clip precisely": the authors' code


@dataclass(frozen=True)
class AWQ(Equalisation):
    """AWQ, with the weights rounded by ``rounder``; the search itself rounds to nearest.

    Attributes:
        objective: ``gram``: the squared error of the linears' outputs, from the Gram matrix of their input. ``module``:
            that of the attention or MLP module around them, by running it (the authors' choice).
        steps: candidates for ``r`` in [0, 1).
        weight_means: whether ``s`` is divided by ``mean |W|^(1 - r)``.
        clip: whether weights are clipped before rounding, all but those of queries and keys.
        clip_steps: shrinking goes by ``1 / clip_steps`` of a group's largest weight.
        max_shrink: largest fraction by which a group shrinks.
        propagate: whether clipping sees inputs from quantized predecessors where ``calib.propagate`` asks for it; the
            authors' sees the original model's.
        links: inputs to scale, by what feeds them: ``norm``, ``linear`` (values of an attention), ``gated``.
    """

    objective: Literal["gram", "module"]
    steps: Count
    weight_means: bool
    clip: bool
    clip_steps: Count
    max_shrink: Fraction
    propagate: bool
    links: Feeds

    @model_validator(mode="after")
    def _clips_or_fits(self) -> Self:
        if self.clip and self.rounder.needs.fits_blocks:
            problem = f"{self.rounder.name!r} learns the grids of whole blocks, to which clipped weights are no start"
            raise UserError("method.clip", problem, "Use method.clip=false, or method@method.rounder=rtn or gptq")
        return self

    @property
    def needs(self) -> Needs:
        """Gram matrices to clip by; propagation also where the rounder's statistics have to be of what it rounds."""
        own = Needs(statistics=frozenset({"gram"}), fits_blocks=True) if self.clip else Needs()
        return replace(super().needs | own, propagation=self.propagate or bool(self.rounder.needs.statistics))

    def transform(self, bench: Workbench) -> Transformed:
        """Searches the scales of every chosen link on the model as it came, then folds them all."""
        links, notes = choose_links(bench, self.links)
        links = [link for link in links if any(bench.plan[path] for path in link.linears)]
        statistics = bench.statistics(gram=self.objective == "gram")
        candidates = {link.name: self._candidates(bench, link, statistics[link.name]) for link in links}
        losses = (
            {
                link.name: _gram_losses(bench, link, statistics[link.name], candidates[link.name])
                for link in progress(links, "search")
            }
            if self.objective == "gram"
            else _module_losses(bench, candidates)
        )
        scales = {link.name: best(candidates[link.name], losses[link.name]) for link in links}
        for link in links:
            fold_scale(bench.module, link, scales[link.name])
        return Transformed(len(links), notes, scales)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """Clips and rounds the block's linears, if ``clip`` is set, except queries and keys."""
        if not self.clip:
            return {}
        rounded = {}
        for linear in task.block.linears:
            spec = bench.plan[linear.path]
            if spec is not None and linear.path.rpartition(".")[2] not in NEVER_CLIPPED:
                stats = task.statistics[bench.graph.link_of(linear.path).name].of(linear)
                W = bench.module.get_parameter(f"{linear.path}.weight").detach().float()
                rounded[linear.path] = self.rounder.round(self.clip_weight(W, spec, stats), spec, stats)
        return rounded

    def clip_weight(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics) -> Tensor:
        """``W`` [out, in] with each group cut at the limit that :func:`clip_limits` finds from ``stats.gram``."""
        if stats.gram is None:
            raise ValueError("AWQ needs the Gram matrix of the linear's input")
        return clipped(W, clip_limits(W, stats.gram, spec, self.clip_steps, self.max_shrink))

    def _candidates(self, bench: Workbench, link: Link, stats: LinkStatistics) -> list[Tensor]:
        if stats.abs_mean is None:
            raise ValueError("AWQ needs the mean magnitude of the linear's input")
        return activation_aware_scales(stats.abs_mean, self.steps, _weight_means(bench, link, self.weight_means))


def _weight_means(bench: Workbench, link: Link, wanted: bool) -> Tensor | None:
    if not wanted:
        return None
    weights = _planned_weights(bench, link)
    return relative_weight_means([W for W, _ in weights], weights[0][1])


def _planned_weights(bench: Workbench, link: Link) -> list[tuple[Tensor, WeightSpec]]:
    specs = [(path, bench.plan[path]) for path in link.linears]
    return [(bench.module.get_parameter(f"{path}.weight").detach().float(), spec) for path, spec in specs if spec]


def _gram_losses(bench: Workbench, link: Link, stats: LinkStatistics, candidates: Sequence[Tensor]) -> list[float]:
    if stats.gram is None:
        raise ValueError("AWQ needs the Gram matrix of the linear's input")
    return gram_losses(_planned_weights(bench, link), stats.gram, stats.count, candidates)


def _module_losses(bench: Workbench, candidates: Mapping[str, Sequence[Tensor]]) -> dict[str, list[float]]:
    if bench.calibration is None:
        raise ValueError("AWQ needs calibration clips")

    def quantize(path: str, s: Tensor) -> Trial | None:
        return rounded_trial(bench, path, s)

    return losses_by_link(bench, bench.calibration, candidates, quantize, inner_probe)


def rounded_trial(bench: Workbench, path: str, s: Tensor, scale_dtype: torch.dtype = torch.float16) -> Trial | None:
    """The linear at ``path`` under the scale ``s`` [in]; None if its weight stays at 16 bits."""
    spec = bench.plan[path]
    if spec is None:
        return None
    return Trial(scaled_and_rounded(bench.module.get_parameter(f"{path}.weight").detach(), s, spec, scale_dtype))
