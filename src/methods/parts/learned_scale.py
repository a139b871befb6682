"""Learnable equivalent transformation (LET): scales and shifts that move outliers from activations into weights.

Shao et al., *OmniQuant* (arXiv 2308.13137), eq. (3): ``Y = X W + B = ((X - delta) / s) (s W) + (B + delta W)``, where
the producer of ``X`` absorbs ``(X - delta) / s``. It acts inside one block, from a norm to the linears that read it and
from v_proj to the output projection (an attention's weights sum to 1: a shift of the values shifts its output alike).

The paper's scales between q and k are left out: they multiply rows of q_proj and k_proj, whose grids scale along, so
they change nothing unless q and k themselves are rounded, which happens here only in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.models.graph import Block, Feed, Link
from src.quant.link_statistics import LinkStatistics
from src.quant.structure import BiasEdit

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench

SMALLEST_SCALE = 1e-2  # in magnitude; the authors' code truncates there
_SMALLEST_STATISTIC = 1e-5


@dataclass(eq=False)
class LearnedScale:
    """One link's scale ``s`` and shift ``delta`` [in], and the names, relative to the block, of what they act on.

    ``delta`` is None where the producer has no bias to absorb it.
    """

    source: str
    feed: Feed
    linears: tuple[str, ...]
    s: Tensor
    delta: Tensor | None

    @property
    def parameters(self) -> list[Tensor]:
        return [self.s] if self.delta is None else [self.s, self.delta]


def links_inside(block: Block, links: Sequence[Link]) -> list[Link]:
    """Links on which LET can act: norm-fed or linear-fed, with producer and all readers in ``block``."""
    paths = {linear.path for linear in block.linears}
    return [
        link
        for link in links
        if link.feed in (Feed.NORM, Feed.LINEAR)
        and link.source.startswith(f"{block.path}.")
        and paths.issuperset(link.linears)
    ]


def why_not(link: Link, block: Block) -> str:
    """Why LET cannot act on the linears of ``link`` in ``block``."""
    if not link.source.startswith(f"{block.path}."):
        return f"no learned scale: {link.source} feeds other blocks too"
    if link.feed is Feed.GATED:
        return "no learned scale: a gate lies between fc1 and this layer, where the paper learns none"
    return f"no learned scale: nothing between {link.source} and this layer can absorb one"


def initial_scale(stats: LinkStatistics, weights: Sequence[Tensor], alpha: float) -> Tensor:
    """``s_j = max |X_j|^alpha / max |W_j|^(1 - alpha)`` [in], the start of the authors' code (SmoothQuant's eq. 4)."""
    x = stats.abs_max.clamp(min=_SMALLEST_STATISTIC)
    w = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0).clamp(min=_SMALLEST_STATISTIC)
    return (x.pow(alpha) / w.pow(1 - alpha)).clamp(min=_SMALLEST_STATISTIC)


def initial_shift(stats: LinkStatistics) -> Tensor:
    """``delta_j = (max X_j + min X_j) / 2`` [in], as in Outlier Suppression+."""
    if stats.minimum is None or stats.maximum is None:
        raise ValueError("minimum and maximum were not collected")
    return (stats.maximum + stats.minimum) / 2


def start_scales(bench: Workbench, task: BlockTask, *, alpha: float, shift: bool) -> list[LearnedScale]:
    """A scale and, with ``shift`` and where it has a place, a shift for each link inside the block, ready to learn.

    Linears without a bias get one where a shift needs it.
    """
    reached = links_inside(task.block, bench.graph.links)
    chosen = [link for link in reached if any(bench.plan[path] for path in link.linears)]
    return [_start(bench, task, link, alpha, shift) for link in chosen]


def _start(bench: Workbench, task: BlockTask, link: Link, alpha: float, shift: bool) -> LearnedScale:
    prefix, stats = f"{task.block.path}.", task.statistics[link.name]
    weights = [bench.module.get_parameter(f"{path}.weight") for path in link.linears]
    s = initial_scale(stats, weights, alpha).to(weights[0]).requires_grad_()
    delta = None
    if shift and _has_bias(bench, link.source):
        delta = initial_shift(stats).to(weights[0]).requires_grad_()
        for path in link.linears:
            if not _has_bias(bench, path):
                bench.edit(BiasEdit(path))
    names = tuple(path.removeprefix(prefix) for path in link.linears)
    return LearnedScale(link.source.removeprefix(prefix), link.feed, names, s, delta)


def _has_bias(bench: Workbench, path: str) -> bool:
    return getattr(bench.module.get_submodule(path), "bias", None) is not None


def equivalent(tensors: Mapping[str, Tensor], scales: Sequence[LearnedScale]) -> dict[str, Tensor]:
    """What the block's parameters become; all that change, by name, differentiable in the scales and shifts.

    Args:
        tensors: the block's parameters by name. Where a shift acts, every linear that reads it has a bias.
        scales: in the order of the links, so that a linear that is scaled on both sides is scaled on its inputs first.
    """
    changed: dict[str, Tensor] = {}

    def current(name: str) -> Tensor:
        return changed[name] if name in changed else tensors[name]

    for each in scales:
        s, source = each.s, f"{each.source}.weight"
        changed[source] = current(source) / (s if each.feed is Feed.NORM else s.unsqueeze(1))
        bias = f"{each.source}.bias"
        if bias in tensors:
            changed[bias] = (current(bias) if each.delta is None else current(bias) - each.delta) / s
        for linear in each.linears:
            weight, bias = f"{linear}.weight", f"{linear}.bias"
            if each.delta is not None:
                changed[bias] = current(bias) + current(weight) @ each.delta
            changed[weight] = current(weight) * s
    return changed


@torch.no_grad()
def truncate(scales: Sequence[LearnedScale]) -> None:
    """Keeps scales away from 0, where the producer would overflow."""
    for each in scales:
        small = each.s.abs() < SMALLEST_SCALE
        each.s[small] = SMALLEST_SCALE * each.s[small].sign()


@torch.no_grad()
def fold(tensors: Mapping[str, Tensor], scales: Sequence[LearnedScale]) -> set[str]:
    """Makes the transformation part of the parameters ``tensors``, in place; returns the names of those changed."""
    changed = equivalent(tensors, scales)
    for name, tensor in changed.items():
        tensors[name].copy_(tensor)
    return set(changed)
