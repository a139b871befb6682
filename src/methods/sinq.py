"""SINQ: rows and columns of weights scaled to like spread before rounding; no calibration data is used.

Müller et al., *SINQ: Sinkhorn-Normalized Quantization for Calibration-Free Low-Precision LLM Weights* (arXiv
2509.22944): a weight is divided by a scale for every row and one for every column, found as in Sinkhorn's algorithm,
until standard deviations of rows and columns are alike (Algorithm 1). Row scales are part of a grid's scale anyway.
Column scales go here into what produces the input, one for all linears that read it, as in the authors' variant without
overhead (pre-SINQ): codes stay on plain grids and nothing is multiplied at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.methods.base import Transformed
from src.methods.parameters import Count
from src.methods.parts.compose import Equalisation
from src.methods.parts.fold import fold_scale
from src.methods.parts.links import Feeds, choose_links
from src.methods.workbench import Workbench
from src.models.graph import Link

# As in the authors' code (sinq/sinkhorn.py): limits of a standard deviation, of one update's factor, and of the
# logarithm of a scale.
_SPREAD, _UPDATE, _LOG_SCALE = (1e-3, 1e3), (0.7, 2.0), (-0.3, 10.0)
_SMALLEST = 1e-12  # of a standard deviation that another is divided by
_ABOVE = 1e-6  # what the target lies above the smallest standard deviation


@dataclass(frozen=True)
class SINQ(Equalisation):
    """SINQ without overhead, with the weights rounded by ``rounder``.

    Attributes:
        iterations: updates of row and column scales; the most balanced iterate is taken.
        passes: how often all links are gone through; the scales of one change the rows of another's weights.
        links: inputs to scale, by what feeds them: ``norm``, ``linear`` (values of an attention), ``gated``.
    """

    reads_activations: ClassVar[bool] = False
    iterations: Count
    passes: Count
    links: Feeds

    def transform(self, bench: Workbench) -> Transformed:
        """Folds the column scales of every chosen link."""
        links, notes = choose_links(bench, self.links)
        scales: dict[str, Tensor] = {}
        for _ in range(self.passes):
            for link, weights, spec in _planned(bench, links):
                s = 1 / shared_column_scale(weights, spec, self.iterations)
                fold_scale(bench.module, link, s)
                scales[link.name] = scales.get(link.name, 1) * s
        return Transformed(len(scales), notes, scales)


def _planned(bench: Workbench, links: Sequence[Link]) -> list[tuple[Link, list[Tensor], WeightSpec]]:
    """Links with weights to round, these weights, and the grid of the first."""
    found = []
    for link in links:
        specs = {path: bench.plan[path] for path in link.linears}
        planned = [
            (bench.module.get_parameter(f"{path}.weight").detach(), spec) for path, spec in specs.items() if spec
        ]
        if planned:
            found.append((link, [weight for weight, _ in planned], planned[0][1]))
    return found


def shared_column_scale(weights: Sequence[Tensor], spec: WeightSpec, iterations: int) -> Tensor:
    """Scale of the columns [in] that ``weights`` [out, in] of one link share, with a median of 1.

    Columns of one group are balanced with each other and with their part of the rows: groups have grids of their own.
    """
    W = torch.cat([weight.float() for weight in weights])
    tiles = torch.split(W, spec.columns_per_group(W.shape[1]), dim=1)
    scale = torch.cat([balancing_scales(tile, iterations)[0] for tile in tiles])
    return scale / scale.median()


def balancing_scales(W: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Scales of columns [in] and rows [out] that balance ``W`` [out, in], float32: Algorithm 1.

    Every update divides rows and columns by their standard deviations, relative to the smallest of all. Of the iterates
    until the imbalance (largest over smallest standard deviation of rows and columns) rises, the last is taken.
    """
    smallest = torch.minimum(W.std(0).clamp(*_SPREAD).min(), W.std(1).clamp(*_SPREAD).min()) + _ABOVE
    logs = [W.new_zeros(W.shape[1]), W.new_zeros(W.shape[0])]
    scales, least = (logs[0].exp(), logs[1].exp()), torch.inf
    for _ in range(iterations):
        columns, rows = logs[0].exp(), logs[1].exp()
        scaled = W / columns / rows.unsqueeze(1)
        spreads = scaled.std(0), scaled.std(1)
        both = torch.cat(spreads)
        imbalance = float(both.max() / both.min().clamp(min=_SMALLEST))
        if imbalance > least:
            break
        scales, least = (columns, rows), imbalance
        updates = [(spread.clamp(*_SPREAD) / smallest).clamp(*_UPDATE).log() for spread in spreads]
        logs = [(log + update).clamp(*_LOG_SCALE) for log, update in zip(logs, updates, strict=True)]
    return scales
