"""TesseraQ: rounding directions learned block by block, made final a share at a time.

Li and Panda, *TesseraQ: Ultra Low-Bit LLM Post-Training Quantization with Block Reconstruction* (arXiv 2410.19103),
Algorithm 1, with :mod:`src.methods.parts.adaptive_rounding`. It starts from the transformation and the grids of another
method, AWQ or OmniQuant in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.machine.progress import progress
from src.methods.base import Method, Needs, Rounded, Transformed
from src.methods.checks import check_flag, check_fraction, check_positive_integer
from src.methods.parts.adaptive_rounding import AdaptiveRounding
from src.methods.parts.block_trainer import Minibatch, minibatches, train
from src.methods.parts.straight_through import quantized_inputs
from src.quant.link_statistics import LinkStatistics

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench


@dataclass(frozen=True)
class TesseraQ(Method):
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
    thresholds: Sequence[float]
    steps: int
    lr: float
    tune_scale: bool
    scale_lr: float
    scale_decay: float
    batch_size: int

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds)
        check_positive_integer("steps", self.steps)
        check_positive_integer("batch_size", self.batch_size)
        check_flag("tune_scale", self.tune_scale)
        check_fraction("lr", self.lr)
        check_fraction("scale_lr", self.scale_lr)
        if not isinstance(self.scale_decay, int | float) or not 0 <= self.scale_decay < 1:
            raise UserError("method.scale_decay", f"{self.scale_decay!r} is out of range", "Use 0, or e.g. 0.0001")

    @property
    def needs(self) -> Needs:
        """Learns block by block with inputs rounded per token, and draws the clips of its steps."""
        blocks = Needs(fits_blocks=True, block_inputs=True, block_outputs=True)
        return self.start.needs | blocks | Needs(seed=True, simulates_inputs=True)

    def transform(self, bench: Workbench) -> Transformed:
        return self.start.transform(bench)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        return self.start.plan(bench)

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        return self.start.token_weights(bench, task)

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """The start's: the grid that learning begins from."""
        return self.start.round(W, spec, stats)

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
                begun[linear.path] = self.start.round(_weight(bench, linear.path), spec, stats)
        for path, each in begun.items():
            if not _has_plain_grid(each.weight):
                problem = (
                    f"{self.start.name} does not store {path} as codes on plain grids in the original column order"
                )
                raise UserError("method.start", problem, "Use method@method.start=awq, omniquant, rtn or rtn_mse")
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


def _has_plain_grid(weight: QuantizedWeight) -> bool:
    """Whether the weight is an integer grid and nothing else."""
    extras = (weight.perm, weight.statistics, weight.sparse, weight.dense)
    return weight.zero.dtype == torch.uint8 and all(each is None for each in extras)


def _drawn(batches: Sequence[Minibatch], steps: int, generator: torch.Generator) -> list[Minibatch]:
    """``steps`` minibatches, drawn at random with replacement."""
    return [batches[index] for index in torch.randint(len(batches), (steps,), generator=generator).tolist()]


def _check_thresholds(thresholds: Sequence[float]) -> None:
    """Raises UserError unless ``thresholds`` are one or more falling shares between 0 and 1."""
    remedy = "Use falling shares of weights that stay free, e.g. method.thresholds=[0.5,0.1,0.01]"
    if not isinstance(thresholds, list | tuple) or not thresholds:
        raise UserError("method.thresholds", f"{thresholds!r} is not a list of numbers", remedy)
    numbers = [each for each in thresholds if isinstance(each, int | float) and 0 < each < 1]
    if len(numbers) < len(thresholds) or sorted(numbers, reverse=True) != list(thresholds):
        raise UserError("method.thresholds", f"{list(thresholds)!r} does not fall from below 1 to above 0", remedy)
