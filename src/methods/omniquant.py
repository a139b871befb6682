"""OmniQuant: grids and equalising scales learned block by block.

Shao et al., *OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models* (arXiv 2308.13137):
learnable weight clipping (:mod:`src.methods.parts.learned_clip`) and learnable equivalent transformation
(:mod:`src.methods.parts.learned_scale`), both trained on the block's reconstruction error. The key-value cache is not
simulated while learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.methods.base import Method, Needs, Rounded, Transformed
from src.methods.parameters import Count, Decay, FlagOrAuto, Fraction
from src.methods.parts.block_trainer import minibatches, train_epochs
from src.methods.parts.learned_clip import LearnedClip
from src.methods.parts.learned_scale import (
    LearnedScale,
    equivalent,
    fold,
    links_inside,
    start_scales,
    truncate,
    why_not,
)
from src.methods.parts.straight_through import quantized_inputs
from src.quant.extras import Extra
from src.settings import FULL_PRECISION

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench


@dataclass(frozen=True)
class OmniQuant(Method):
    """OmniQuant with the options of its authors' code.

    Attributes:
        lwc: learn the ends of the weights' grids.
        let: learn scales and shifts; ``auto``: where inputs are quantized too, as in the paper.
        shift: learn shifts beside scales, where the producer has a bias (Whisper's norms; Moonshine's have none).
        alpha: migration strength of the scales' start.
        lwc_lr: learning rate of the clipping factors.
        let_lr: learning rate of scales and shifts.
        weight_decay: of AdamW, for all of them.
        epochs: passes over the calibration clips, a block.
        best_of: passes at the end whose results are compared; the best is kept.
        batch_size: clips a step.
    """

    lwc: bool
    let: FlagOrAuto
    shift: bool
    alpha: Fraction
    lwc_lr: Fraction
    let_lr: Fraction
    weight_decay: Decay
    epochs: Count
    best_of: Count
    batch_size: Count

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if not self.lwc and self.let is not True:
            raise UserError("method.lwc", "with lwc=false and let not true, nothing is learned", "Set one to true")
        return self

    @property
    def needs(self) -> Needs:
        """Learns block by block with inputs rounded per token; a learned shift leaves biases."""
        biases = frozenset({Extra.BIASES}) if self.let is True and self.shift else frozenset()
        blocks = Needs(fits_blocks=True, block_inputs=True, block_outputs=True, rescales=self.let is not False)
        return blocks | Needs(simulates_inputs=True, stores=biases)

    def transform(self, bench: Workbench) -> Transformed:
        """Changes nothing yet; says which linears the learned scales will not reach."""
        if not self._learns_scales(bench):
            return Transformed(acted=0)
        notes = {}
        for block in bench.graph.blocks:
            reached = links_inside(block, bench.graph.links)
            for linear in block.linears:
                link = bench.graph.link_of(linear.path)
                if link not in reached:
                    notes[linear.path] = why_not(link, block)
        return Transformed(acted=0, notes=notes)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """Learns the block's grids and scales, folds the scales into its parameters and rounds its linears."""
        prefix = f"{task.block.path}."
        specs = {each.path.removeprefix(prefix): bench.plan[each.path] for each in task.block.linears}
        planned = {name: spec for name, spec in specs.items() if spec is not None}
        if not planned:
            return {}
        scales = start_scales(bench, task, alpha=self.alpha, shift=self.shift) if self._learns_scales(bench) else []
        tensors = {name: each.detach() for name, each in task.module.named_parameters()}
        clips = {name: LearnedClip(tensors[f"{name}.weight"], spec, learn=self.lwc) for name, spec in planned.items()}

        def current() -> dict[str, Tensor]:
            truncate(scales)
            changed = equivalent(tensors, scales)
            for name, clip in clips.items():
                weight = f"{name}.weight"
                changed[weight] = clip(changed.get(weight, tensors[weight]))
            return changed

        batches, optimizer = minibatches(task, self.batch_size), self._optimizer(clips, scales)
        abits = {name: bench.abits[prefix + name] for name in specs}
        with quantized_inputs(task.module, abits):
            train_epochs(task.module, current, batches, optimizer, epochs=self.epochs, best_of=self.best_of)
        for name in fold(tensors, scales) - {f"{name}.weight" for name in planned}:
            tensors[name].copy_(tensors[name].half())  # the value it is stored with
        return {prefix + name: Rounded(clip.quantize(tensors[f"{name}.weight"])) for name, clip in clips.items()}

    def _learns_scales(self, bench: Workbench) -> bool:
        if self.let == "auto":
            return any(bits != FULL_PRECISION for bits in bench.abits.values())
        return self.let

    def _optimizer(self, clips: Mapping[str, LearnedClip], scales: list[LearnedScale]) -> torch.optim.Optimizer:
        groups = [
            {"params": [each for scale in scales for each in scale.parameters], "lr": self.let_lr},
            {"params": [each for clip in clips.values() for each in clip.parameters], "lr": self.lwc_lr},
        ]
        filled = [group for group in groups if group["params"]]
        return torch.optim.AdamW(filled, weight_decay=self.weight_decay, fused=True)
