"""QuaRot: rotations that leave the model's output as it is and its activations without outliers.

Ashkboos et al., *QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs* (arXiv 2404.00456). A randomised Hadamard matrix
spreads what a few channels carry over all of them, for the price of folded weights and a few small products on the fly.
See :mod:`src.methods.parts.rotate` for where each rotation goes in an encoder-decoder with LayerNorms.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic.dataclasses import dataclass

from src.methods.base import Needs, Transformed
from src.methods.parts.center import center_streams
from src.methods.parts.compose import Composed
from src.methods.parts.rotate import (
    OnlineRotations,
    Rotations,
    draw_rotations,
    fold_rotations,
    online_rotations,
    rotate_inputs,
    rotate_keys,
    without_online_rotations,
)
from src.methods.workbench import Workbench
from src.quant.extras import Extra


@dataclass(frozen=True)
class QuaRot(Composed):
    """Rotates the model, then hands it to ``rounder``.

    Attributes:
        online: rotate on the fly before fc2 and, across heads, before o.
        keys: round keys of a quantized cache in a rotated basis.
    """

    online: bool
    keys: bool

    @property
    def needs(self) -> Needs:
        """Left are rotations that no weight absorbs, and what centring moves into biases."""
        stores = frozenset({Extra.ROTATIONS, Extra.BIASES})
        return super().needs | Needs(rewrites=True, rotates_streams=True, stores=stores)

    def transform(self, bench: Workbench) -> Transformed:
        """Rotates streams, heads, inputs of fc2 and o, and keys. See :meth:`Method.transform`."""
        generator = torch.Generator().manual_seed(bench.seed)
        center_streams(bench)
        drawn = draw_rotations(bench.graph, generator)
        online = online_rotations(bench.graph, generator) if self.online else without_online_rotations(bench.graph)
        rotations = self.fitted(bench, drawn, online)
        fold_rotations(bench, rotations)
        rotate_inputs(bench, online.inputs)
        if self.keys:
            rotate_keys(bench, generator)
        return Transformed(len(bench.graph.links), _joined(rotations.notes, online.notes))

    def fitted(self, bench: Workbench, drawn: Rotations, online: OnlineRotations) -> Rotations:  # noqa: ARG002 - a hook
        """What is folded instead of the rotations drawn; here, just those."""
        return drawn


def _joined(*notes: Mapping[str, str]) -> dict[str, str]:
    """Notes by linear path, those on the same linear one after the other."""
    paths = dict.fromkeys(path for each in notes for path in each)
    return {path: "; ".join(each[path] for each in notes if path in each) for path in paths}
