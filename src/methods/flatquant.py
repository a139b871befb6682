"""FlatQuant: affine transforms, learned link by link, that make weights and activations flat.

Sun et al., *FlatQuant: Flatness Matters for LLM Quantization* (arXiv 2410.09426), with
:mod:`src.methods.parts.affine_link` and :mod:`src.methods.parts.clamped_weight`. A rotation spreads outliers evenly,
whatever the data; an invertible matrix for every input of linears can learn to do better, for one or two small products
on the fly. As in the authors' code, a block learns scales, matrices and the ends of its weights' grids at once, to give
what the full-precision block gives; here on inputs from quantized predecessors, unless ``calib.propagate=fp``.

Left out: the learned clipping of activations, since stored grids of inputs span from a token's smallest to its largest
value, and the transform of cached keys. The loss is not divided by its own value, to which AdamW is nearly indifferent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.methods.base import Needs, Rounded, Transformed
from src.methods.parameters import Count, Decay, Fraction
from src.methods.parts.affine_link import AffineLink, equivalent, fold, install, start_links
from src.methods.parts.block_trainer import minibatches, train
from src.methods.parts.clamped_weight import ClampedWeight
from src.methods.parts.compose import Composed
from src.methods.parts.links import in_scope
from src.methods.parts.straight_through import quantized_inputs
from src.quant.extras import Extra

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench

LAST_SHARE = 1e-3  # of ``lr``, where the cosine ends for all parameters: the authors' code


@dataclass(frozen=True)
class FlatQuant(Composed):
    """FlatQuant with the options of its authors' code; weights are rounded by ``rounder``.

    Attributes:
        scale: learn a scale for every channel where what feeds a link can absorb it.
        alpha: migration strength of the scales' start.
        clip: learn where weights are cut before they are rounded. All linears of a block are then rounded on the same
            statistics, whatever ``calib.sequential`` says.
        lr: learning rate of matrices and scales; falls along a cosine.
        clip_lr: learning rate of the cuts; likewise.
        weight_decay: of AdamW, for all of them.
        epochs: passes over the calibration clips, a block.
        batch_size: clips a step.
    """

    scale: bool
    alpha: Fraction
    clip: bool
    lr: Fraction
    clip_lr: Fraction
    weight_decay: Decay
    epochs: Count
    batch_size: Count

    @model_validator(mode="after")
    def _rounder_keeps_blocks(self) -> Self:
        if self.rounder.needs.rescales:
            problem = f"{self.rounder.name!r} learns scales itself, in places where the transforms are"
            raise UserError("method.rounder", problem, "Use method@method.rounder=rtn or gptq")
        if self.clip and self.rounder.needs.fits_blocks:
            problem = f"{self.rounder.name!r} learns the grids of whole blocks, to which clipped weights are no start"
            raise UserError("method.clip", problem, "Use method.clip=false, or method@method.rounder=rtn or gptq")
        return self

    @property
    def needs(self) -> Needs:
        """Learns block by block with inputs rounded per token; left are matrices that no weight absorbs."""
        blocks = Needs(fits_blocks=True, block_inputs=True, block_outputs=True, rescales=True, simulates_inputs=True)
        return super().needs | blocks | Needs(stores=frozenset({Extra.ROTATIONS}))

    def transform(self, bench: Workbench) -> Transformed:
        """Counts what there is to transform, block by block."""
        return Transformed(acted=sum(1 for _ in in_scope(bench)))

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """Learns the block's transforms and folds them; measures what its links carry now; rounds what it has cut."""
        links = start_links(bench, task, alpha=self.alpha if self.scale else None)
        if not links:
            return super().fit_block(bench, task)
        install(bench, task.block, links)
        planned = [(each, spec) for each in task.block.linears if (spec := bench.plan[each.path]) is not None]
        cuts = {each.path: ClampedWeight(_weight(bench, each.path), spec, learn=self.clip) for each, spec in planned}
        self._learn(bench, task, links, cuts)
        changed = fold(task, links)
        for name in changed - {f"{path}.weight".removeprefix(f"{task.block.path}.") for path in cuts}:
            parameter = task.module.get_parameter(name)
            parameter.copy_(parameter.half())  # the value it is stored with
        task.statistics = task.measure()
        if not self.clip:
            return super().fit_block(bench, task)
        rounded = {}
        for linear, spec in planned:
            with torch.no_grad():
                W = cuts[linear.path].clamped(_weight(bench, linear.path))
            stats = task.statistics.get(bench.graph.link_of(linear.path).name)
            rounded[linear.path] = self.round(W, spec, stats.of(linear) if stats else None)
        return rounded

    def _learn(
        self, bench: Workbench, task: BlockTask, links: Sequence[AffineLink], cuts: Mapping[str, ClampedWeight]
    ) -> None:
        prefix = f"{task.block.path}."
        tensors = {name: each.detach() for name, each in task.module.named_parameters()}
        weights = {f"{path}.weight".removeprefix(prefix): cut for path, cut in cuts.items()}
        steps = minibatches(task, self.batch_size) * self.epochs
        rates = self.lr, self.clip_lr
        optimizer = learners(links, cuts.values(), len(steps), rates, weight_decay=self.weight_decay)
        abits = {each.path.removeprefix(prefix): bench.abits[each.path] for each in task.block.linears}
        with quantized_inputs(task.module, abits):
            train(task.module, partial(quantized, tensors, links, weights), steps, optimizer)


def learners(
    links: Sequence[AffineLink],
    cuts: Collection[ClampedWeight],
    steps: int,
    rates: tuple[float, float],
    *,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """The optimiser of ``links`` and ``cuts``, whose two ``rates`` fall along a cosine over ``steps`` steps."""
    parameters = [each for link in links for each in link.parameters], [each for cut in cuts for each in cut.parameters]
    groups = [{"params": each, "lr": rate} for each, rate in zip(parameters, rates, strict=True) if each]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=rates[0] * LAST_SHARE)
    optimizer.register_step_post_hook(lambda *_: cosine.step())
    return optimizer


def quantized(
    tensors: Mapping[str, Tensor], links: Sequence[AffineLink], cuts: Mapping[str, ClampedWeight]
) -> dict[str, Tensor]:
    """Of a block's ``tensors`` by name all that transforms and cuts change, weights rounded; differentiable."""
    for each in links:
        each.truncate()
    changed = equivalent(tensors, links, [each.matrices() for each in links])
    return changed | {name: cut(changed[name]) for name, cut in cuts.items()}


def _weight(bench: Workbench, path: str) -> Tensor:
    """The linear's weight as it is now, [out, in], float32."""
    return bench.module.get_parameter(f"{path}.weight").detach().float()
