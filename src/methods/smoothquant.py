"""SmoothQuant: outlying activation channels are scaled down, and the weights they meet scaled up.

Xiao et al., *SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models* (arXiv
2211.10438), eq. (4) in its symbols: ``s_j = max |X_j|^alpha / max |W_j|^(1 - alpha)`` for input channel ``j``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.methods.base import Transformed
from src.methods.parameters import Fraction
from src.methods.parts.compose import Equalisation
from src.methods.parts.fold import fold_scale
from src.methods.parts.links import Feeds, choose_links
from src.methods.workbench import Workbench

SMALLEST = 1e-5  # of a weight's maximum and of a scale, as in the authors' code (smoothquant/smooth.py)


@dataclass(frozen=True)
class SmoothQuant(Equalisation):
    """SmoothQuant, with the weights rounded by ``rounder``.

    Attributes:
        alpha: migration strength: 0 would equalise the weights only, 1 moves all of the activations' spread.
        links: inputs to smooth, by what feeds them: ``norm``, ``linear`` (values of an attention), ``gated``.
    """

    alpha: Fraction
    links: Feeds

    def transform(self, bench: Workbench) -> Transformed:
        """Folds the scales of every chosen link, from the largest activations of the model as it came."""
        statistics = bench.statistics(gram=False)
        links, notes = choose_links(bench, self.links)
        scales = {}
        for link in links:
            weights = [bench.module.get_parameter(f"{path}.weight") for path in link.linears]
            scales[link.name] = smoothing_scales(statistics[link.name].abs_max, weights, self.alpha)
            fold_scale(bench.module, link, scales[link.name])
        return Transformed(len(links), notes, scales)


def smoothing_scales(abs_max: Tensor, weights: Sequence[Tensor], alpha: float) -> Tensor:
    """``s`` [in], eq. (4), for linears that share an input.

    A channel that was always zero keeps the scale 1: it tells nothing, and ``1e-5``, to which the authors' code clamps,
    might take what feeds it beyond float16.

    Args:
        abs_max: ``max |X_j|`` of each channel, [in].
        weights: one [out, in] for each linear; the maximum is over all their rows.
        alpha: migration strength.
    """
    weight_max = torch.stack([weight.detach().abs().amax(0) for weight in weights]).amax(0).clamp_(min=SMALLEST)
    s = (abs_max.to(weight_max).pow(alpha) / weight_max.pow(1 - alpha)).clamp_(min=SMALLEST)
    return s.masked_fill_(abs_max == 0, 1.0)
