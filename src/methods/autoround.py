"""AutoRound: rounding and clipping learned block by block, by the signs of their gradients.

Cheng et al., *Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs* (SignRound, arXiv
2309.05516), Algorithm 1, with :mod:`src.methods.parts.signed_rounding`. As in the authors' code, a block learns on
inputs from quantized predecessors (``enable_quanted_input``; here ``calib.propagate=quantized``) to give what the
full-precision block gives on full-precision ones. To search a grid to start from is an idea of SignRound V2 (arXiv
2512.04746), which weighs errors by activations; here it is :func:`src.quant.grid.weight_range_mse`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, FractionOrAuto
from src.methods.parts.block_trainer import Best, Minibatch, minibatches, train
from src.methods.parts.signed_rounding import FACTORS, OFFSETS, SignedRounding, SignSGD
from src.methods.parts.straight_through import quantized_inputs
from src.quant.grid import Range

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench


@dataclass(frozen=True)
class AutoRound(Method):
    """SignRound with the options of its authors' code.

    Attributes:
        steps: optimiser steps a block.
        lr: first step of offsets and clip factors, which falls linearly to 0; ``auto``: ``1 / steps``, with which an
            offset can just reach its bound.
        range: grids to start from: from a group's smallest to its largest weight (``minmax``) or searched (``mse``).
        clip: learn the ends of the grids, from there inwards.
        batch_size: clips a step.
        keep: which iterate is stored: the ``last``, or that whose minibatch had the ``least_loss``.
    """

    steps: Count
    lr: FractionOrAuto
    range: Range
    clip: bool
    batch_size: Count
    keep: Literal["last", "least_loss"]

    @property
    def needs(self) -> Needs:
        """Learns block by block with inputs rounded per token, and draws the clips of its steps."""
        return Needs(fits_blocks=True, block_inputs=True, block_outputs=True, seed=True, simulates_inputs=True)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        """Learns the rounding of the block's linears."""
        prefix = f"{task.block.path}."
        layers = {
            path.removeprefix(prefix): SignedRounding(_weight(bench, path), spec, self.range, clip=self.clip)
            for path, spec in ((linear.path, bench.plan[linear.path]) for linear in task.block.linears)
            if spec is not None
        }
        if not layers:
            return {}
        abits = {each.path.removeprefix(prefix): bench.abits[each.path] for each in task.block.linears}
        with quantized_inputs(task.module, abits):
            self._learn(bench, task, layers)
        return {prefix + name: Rounded(each.quantize()) for name, each in layers.items()}

    def _learn(self, bench: Workbench, task: BlockTask, layers: Mapping[str, SignedRounding]) -> None:
        batches = minibatches(task, self.batch_size)
        steps = list(_shuffled(batches, self.steps, torch.Generator().manual_seed(bench.seed)))
        optimizer = learners(layers.values(), self.steps, 1 / self.steps if self.lr == "auto" else self.lr)
        best = Best(optimizer)

        def current() -> dict[str, Tensor]:
            return {f"{name}.weight": each() for name, each in layers.items()}

        if self.keep == "last":
            train(task.module, current, steps, optimizer)
        else:
            train(task.module, current, steps, optimizer, best.offer)
            best.restore()


def learners(layers: Collection[SignedRounding], steps: int, lr: float) -> SignSGD:
    """The optimiser of ``layers``."""
    groups = [{"params": [each.V for each in layers], "lr": lr, "bounds": OFFSETS}]
    factors = [each.factors for each in layers if each.factors.requires_grad]
    if factors:
        groups.append({"params": factors, "lr": lr, "bounds": FACTORS})
    return SignSGD(groups, steps)


def _shuffled(batches: Sequence[Minibatch], steps: int, generator: torch.Generator) -> Iterator[Minibatch]:
    """``steps`` minibatches: all in a random order, then all in another, and so on."""
    for start in range(0, steps, len(batches)):
        for index in torch.randperm(len(batches), generator=generator)[: steps - start].tolist():
            yield batches[index]


def _weight(bench: Workbench, path: str) -> Tensor:
    """The linear's weight as it is now, [out, in], float32."""
    return bench.module.get_parameter(f"{path}.weight").detach().float()
