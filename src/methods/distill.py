"""End-to-end self-distillation: the quantized model learns to say what the full-precision model says.

Rounding layer by layer cannot know which errors the next layers forgive. Here all codes and step sizes learn together
(:mod:`src.methods.parts.learned_codes`), with the biases and norms that stay at 16 bits, from the model's own answers
to unlabelled clips (:mod:`src.methods.parts.distillation`): knowledge distillation (Hinton et al., arXiv 1503.02531) as
in LLM-QAT (arXiv 2305.17888), for as few steps as EfficientQAT (arXiv 2407.11062) takes after its blocks. The teacher
is the model as the start's transform left it, so that rotated models are compared in one basis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, Passes, Positive
from src.methods.parts.augmentation import augment
from src.methods.parts.delegating import Delegating
from src.methods.parts.distillation import Distillation, distill, learning
from src.methods.parts.plain_grid import require_plain_grid
from src.methods.parts.straight_through import quantized_inputs
from src.quant.link_statistics import LinkStatistics

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.tuning import Tuning
    from src.methods.workbench import Workbench


@dataclass(frozen=True)
class Distill(Delegating):
    """Self-distillation of what ``start`` made.

    Attributes:
        start: the method that transforms, plans and rounds before.
        copies: changed clips of every calibration clip that are learned beside it.
        epochs: passes over all of them.
        batch_size: clips a step.
        lr: learning rate of the latent weights, in steps of their grids; like the other two it falls along a cosine.
        scale_lr: learning rate of the logarithms of the step sizes.
        other_lr: learning rate of biases and norms.
        encoder_weight: of the encoder's relative error in the objective.
        by_clip: leave out the silence behind short clips where half of the model's window holds them.
    """

    start: Method
    copies: Passes
    epochs: Count
    batch_size: Count
    lr: Positive
    scale_lr: Positive
    other_lr: Positive
    encoder_weight: Positive
    by_clip: bool

    @property
    def inner(self) -> Method:
        return self.start

    @property
    def needs(self) -> Needs:
        """The start's, and clips whose order the seed draws; it learns with inputs rounded per token."""
        return super().needs | Needs(clips=True, seed=True, tunes=True, simulates_inputs=True, decoder=True)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """The start's. Raises UserError where it stores more than codes on plain grids."""
        fitted = super().fit_block(bench, task)
        for path, each in fitted.items():
            require_plain_grid(each.weight, self.start.name, path)
        return fitted

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """The start's, from which learning begins. Raises UserError as :meth:`fit_block` does."""
        rounded = super().round(W, spec, stats)
        require_plain_grid(rounded.weight, self.start.name)
        return rounded

    def tune(self, bench: Workbench, tuning: Tuning) -> Mapping[str, QuantizedWeight]:
        """Learns codes, step sizes, biases and norms; see the module.

        Raises:
            UserError: learning diverged.
        """
        if bench.calibration is None:
            raise ValueError("distillation needs calibration clips")
        clips = bench.calibration + augment(tuning.teacher, bench.calibration, self.copies, bench.seed)
        heard = clips.in_half(bench.speech) if self.by_clip else clips
        with quantized_inputs(bench.module, bench.abits), learning(bench, tuning) as learned:
            distillation = Distillation(bench.speech, tuning.teacher, heard, encoder_weight=self.encoder_weight)
            distill(
                distillation,
                learned,
                tuning,
                clips=len(clips.ids),
                epochs=self.epochs,
                batch_size=self.batch_size,
                rates=(self.lr, self.scale_lr, self.other_lr),
                seed=bench.seed,
            )
            return learned.quantized()
