"""Outlier Suppression+: activation channels are shifted to their centres, and the largest scaled down.

Wei et al., *Outlier Suppression+: Accurate quantization of large language models by equivalent and effective shifting
and scaling* (EMNLP 2023, arXiv 2304.09145): shift ``z_j = (max X_j + min X_j) / 2``; scale ``s_j = max(1, max|X_j -
z_j| / t)`` with the threshold ``t`` by grid search, so that the output of what the linears belong to (the attention
over queries, keys and values; the gated or plain first linear of an MLP) changes least when activations and weights are
quantized.

The paper shifts every channel. The middle of two rare extremes can lie far from where a channel's values are, and what
is left of the channel then meets the weights' rounding errors at full size: by default the search decides here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.calib.capture import Calibration
from src.methods.base import Needs, Transformed
from src.methods.parameters import Count, FlagOrAuto, Positive
from src.methods.parts.compose import Equalisation
from src.methods.parts.equalise import best, limiting_scales, scaled_and_rounded
from src.methods.parts.fold import SHIFTABLE, fold_scale, fold_shift
from src.methods.parts.links import Feeds, choose_links
from src.methods.parts.trial import Probe, Trial, inner_probe, losses_by_link
from src.methods.workbench import Workbench
from src.models.graph import Block, Link
from src.quant.extras import Extra
from src.quant.fake import fake_quantize_tokens
from src.quant.link_statistics import LinkStatistics
from src.settings import FULL_PRECISION

WIDEST_STEP = 0.5  # of the threshold, in the units of the activations: the authors' code


class ShiftAndScale(NamedTuple):
    """One way to treat a link's input: ``(x - z) / s``, both [in]."""

    z: Tensor
    s: Tensor


@dataclass(frozen=True)
class OutlierSuppressionPlus(Equalisation):
    """Outlier Suppression+, with the weights rounded by ``rounder``; the search itself rounds to nearest.

    Attributes:
        shift: whether channels are centred first; ``auto``: on the links where the search finds less loss with it.
        floor: smallest threshold that is tried, in the units of the activations.
        steps: least number of steps from the largest activation to ``floor``.
        clips: calibration clips the outputs are compared on, spread evenly over all lengths.
        links: inputs to act on, by what feeds them: ``norm``, ``linear`` (attention values), ``gated`` (no shift).
    """

    shift: FlagOrAuto
    floor: Positive
    steps: Count
    clips: Count
    links: Feeds

    @property
    def needs(self) -> Needs:
        """Trial scales are judged on inputs rounded per token; a shift leaves biases."""
        biases = frozenset({Extra.BIASES}) if self.shift else frozenset()
        return super().needs | Needs(rewrites=True, simulates_inputs=True, stores=biases)

    def transform(self, bench: Workbench) -> Transformed:
        """Searches shift and scale of every chosen link on the model as it came, then folds them all."""
        if bench.calibration is None:
            raise ValueError("OutlierSuppressionPlus needs calibration clips")
        statistics = bench.statistics(gram=False)
        links, notes = choose_links(bench, self.links)
        candidates = {link.name: self.candidates(link, statistics[link.name]) for link in links}
        clips = some_clips(bench.calibration, self.clips)
        losses = losses_by_link(bench, clips, candidates, trial_of(bench), core_probe)
        for link in links:
            chosen = best(candidates[link.name], losses[link.name])
            if chosen.z.any():
                fold_shift(bench, link, chosen.z)
            fold_scale(bench.module, link, chosen.s)
        return Transformed(len(links), notes)

    def candidates(self, link: Link, stats: LinkStatistics) -> list[ShiftAndScale]:
        """What the search tries on ``link``, whose input ranges as ``stats`` say; the mildest first."""
        return [
            ShiftAndScale(z, s)
            for z in self._shifts(link, stats)
            for s in limiting_scales(_largest(stats, z), self.floor, self.steps, WIDEST_STEP)
        ]

    def _shifts(self, link: Link, stats: LinkStatistics) -> list[Tensor]:
        """Every ``z`` [in] to try."""
        low, high = _ends(stats)
        none, middle = torch.zeros_like(low), (high + low) / 2
        if self.shift is False or link.feed not in SHIFTABLE:
            return [none]
        return [middle] if self.shift is True else [none, middle]


def trial_of(
    bench: Workbench, scale_dtype: torch.dtype = torch.float16
) -> Callable[[str, ShiftAndScale], Trial | None]:
    """What becomes of a linear under ``z`` and ``s``.

    The weight: ``Q(W diag(s)) diag(s)^-1``; the input: ``s Q_a((x - z) / s)``; and ``W z`` is added to the bias.
    """

    def quantize(path: str, each: ShiftAndScale) -> Trial | None:
        W, spec, bits = bench.module.get_parameter(f"{path}.weight").detach(), bench.plan[path], bench.abits[path]
        weight = W if spec is None else scaled_and_rounded(W, each.s, spec, scale_dtype)
        z, s = each.z.to(W), each.s.to(W)
        shifted = bool(z.any())

        def change(x: Tensor) -> Tensor:
            x = x - z if shifted else x
            return x if bits == FULL_PRECISION else fake_quantize_tokens(x / s, bits) * s

        changes = shifted or bits != FULL_PRECISION
        return Trial(weight, change if changes else None, W @ z if shifted else None)

    return quantize


def core_probe(block: Block, link: Link) -> Probe:
    """Where the authors look: what the module's last linear is given (the attention's values, the gated product).

    A linear that is not in such a module, or is its last one, is judged by its own output.
    """
    probe = inner_probe(block, link)
    inner = [linear.path for linear in block.linears if linear.path.startswith(f"{probe.module}.")]
    return replace(probe, inside=inner[-1]) if inner else probe


def some_clips(calibration: Calibration, clips: int) -> Calibration:
    """At most ``clips`` of the clips, evenly spread over the order by length."""
    total = len(calibration.ids)
    chosen = (
        sorted({(2 * number + 1) * total // (2 * clips) for number in range(clips)}) if clips < total else range(total)
    )
    return calibration.part(chosen)


def _ends(stats: LinkStatistics) -> tuple[Tensor, Tensor]:
    if stats.minimum is None or stats.maximum is None:
        raise ValueError("OutlierSuppressionPlus needs the extremes of the linear's input")
    return stats.minimum, stats.maximum


def _largest(stats: LinkStatistics, z: Tensor) -> Tensor:
    """``max |X_j - z_j|`` [in]."""
    low, high = _ends(stats)
    return torch.maximum(high - z, z - low)
