"""TesseraQ: rounding directions learned block by block, made final a share at a time.

Li and Panda, *TesseraQ: Ultra Low-Bit LLM Post-Training Quantization with Block Reconstruction* (arXiv 2410.19103),
Algorithm 1, with :mod:`src.methods.parts.adaptive_rounding`. It starts from the transformation and the grids of another
method, AWQ or OmniQuant in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.machine.progress import progress
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, Decay, Fraction
from src.methods.parts.adaptive_rounding import AdaptiveRounding
from src.methods.parts.block_trainer import Minibatch, minibatches, train
from src.methods.parts.delegating import Delegating
from src.methods.parts.plain_grid import require_plain_grid
from src.methods.parts.straight_through import quantized_inputs

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench


def _falling(shares: tuple[float, ...]) -> tuple[float, ...]:
    if sorted(shares, reverse=True) != list(shares):
        raise ValueError("they rise")
    return shares


Thresholds = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], ...],
    AfterValidator(_falling),
    Field(min_length=1, description="a list of shares that fall from below 1 to above 0", examples=["[0.5,0.1,0.01]"]),
]


@dataclass(frozen=True)
class TesseraQ(Delegating):
    """TesseraQ with the options of its authors' code.

    Attributes:
        start: the method whose transformation and grids it begins with; its codes are learned anew.
        thresholds: share of the weights that is still free after each hardening, falling; after the last all are hard.
        steps: optimiser steps after each hardening.
        lr: learning rate of the rounding variables.
        tune_scale: learn a factor on every stored scale (DST).
        scale_lr: learning rate of these factors.
        scale_decay: their L2 penalty, which pulls them to 1.
        batch_size: clips a step.
    """

    start: Method
    thresholds: Thresholds
    steps: Count
    lr: Fraction
    tune_scale: bool
    scale_lr: Fraction
    scale_decay: Decay
    batch_size: Count

    @property
    def inner(self) -> Method:
        return self.start

    @property
    def needs(self) -> Needs:
        """Learns block by block with inputs rounded per token, and draws the clips of its steps."""
        blocks = Needs(fits_blocks=True, block_inputs=True, block_outputs=True)
        return super().needs | blocks | Needs(seed=True, simulates_inputs=True)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """Learns the rounding of the block's linears on the grids that the start chose."""
        prefix = f"{task.block.path}."
        begun = self._begin(bench, task)
        layers = {
            path.removeprefix(prefix): AdaptiveRounding(_weight(bench, path), each.weight, tune_scale=self.tune_scale)
            for path, each in begun.items()
        }
        if not layers:
            return {}
        abits = {each.path.removeprefix(prefix): bench.abits[each.path] for each in task.block.linears}
        with quantized_inputs(task.module, abits):
            self._learn(bench, task, layers)
        return {prefix + name: Rounded(each.quantize(), begun[prefix + name].notes) for name, each in layers.items()}

    def _begin(self, bench: Workbench, task: BlockTask) -> dict[str, Rounded]:
        """What the start makes of every planned linear of the block.

        Raises:
            UserError: the start stores more than codes on plain grids.
        """
        begun = dict(self.start.fit_block(bench, task))
        for linear in task.block.linears:
            spec = bench.plan[linear.path]
            if spec is not None and linear.path not in begun:
                stats = task.statistics.get(bench.graph.link_of(linear.path).name)
                about = stats.of(linear) if stats else None
                begun[linear.path] = self.start.round(_weight(bench, linear.path), spec, about)
        for path, each in begun.items():
            require_plain_grid(each.weight, self.start.name, path)
        return begun

    def _learn(self, bench: Workbench, task: BlockTask, layers: Mapping[str, AdaptiveRounding]) -> None:
        """Algorithm 1: harden, learn what is left, and so on; a fresh optimiser each time."""
        batches = minibatches(task, self.batch_size)
        generator = torch.Generator().manual_seed(bench.seed)
        for soft in progress(self.thresholds, "hardening"):
            for each in layers.values():
                each.harden(soft)
            train(
                task.module,
                lambda: {f"{name}.weight": each() for name, each in layers.items()},
                _drawn(batches, self.steps, generator),
                self._optimizer(layers),
            )
        for each in layers.values():
            each.harden(0.0)

    def _optimizer(self, layers: Mapping[str, AdaptiveRounding]) -> torch.optim.Optimizer:
        groups = [{"params": [each.nu for each in layers.values()], "lr": self.lr, "weight_decay": 0.0}]
        factors = [each.v for each in layers.values() if each.v is not None]
        if factors:
            groups.append({"params": factors, "lr": self.scale_lr, "weight_decay": self.scale_decay})
        return torch.optim.Adam(groups, fused=True)


def _weight(bench: Workbench, path: str) -> Tensor:
    """The linear's weight as it is now, [out, in], float32."""
    return bench.module.get_parameter(f"{path}.weight").detach().float()


def _drawn(batches: Sequence[Minibatch], steps: int, generator: torch.Generator) -> list[Minibatch]:
    """``steps`` minibatches, drawn at random with replacement."""
    return [batches[index] for index in torch.randint(len(batches), (steps,), generator=generator).tolist()]
