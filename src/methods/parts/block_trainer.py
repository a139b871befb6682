"""Block reconstruction: learning parameters that bring a quantized block's output close to the full-precision one's.

The block itself is never changed: :func:`torch.func.functional_call` runs it with the tensors that the parameters stand
for at the moment. The objective is the mean squared error over rows that are not padding, eq. (1) of OmniQuant (arXiv
2308.13137) and of BRECQ (arXiv 2102.05426), weighted by what rows count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.calib.task import BlockInput, BlockTask
from src.errors import UserError
from src.machine.progress import progress
from src.models.products import FastLinears

Tensors = Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Minibatch:
    """A few clips at the door of a block, and what the full-precision block makes of them.

    Attributes:
        hidden: input of the block, [clips, rows, d].
        kwargs: what else the block takes.
        valid: bool [clips, rows], False where a row is padding; None where no row is.
        target: full-precision outputs of the valid rows, [clips, rows, d], or [valid rows, d] if there is padding.
        weights: what these rows count, of mean 1, [clips, rows, 1] or [valid rows, 1]; None where all count alike.
    """

    hidden: Tensor
    kwargs: dict[str, Any]
    valid: Tensor | None
    target: Tensor
    weights: Tensor | None


def minibatches(task: BlockTask, clips: int) -> list[Minibatch]:
    """Splits the calibration batches of ``task`` into steps of at most ``clips`` clips, in order."""
    return [
        _slice(batch, target, slice(start, start + clips))
        for batch, target in zip(task.inputs, task.targets, strict=True)
        for start in range(0, len(batch.hidden), clips)
    ]


def _slice(batch: BlockInput, target: Tensor, chosen: slice) -> Minibatch:
    part, expected = batch.part(chosen), target[chosen]
    shares = None if part.weights is None else part.weights.square().unsqueeze(-1)
    valid = None if part.valid.all() else part.valid
    if valid is not None:
        expected, shares = expected[valid], None if shares is None else shares[valid]
    return Minibatch(part.hidden, part.kwargs, valid, expected, None if shares is None else shares / shares.mean())


def block_loss(module: nn.Module, tensors: Mapping[str, Tensor], batch: Minibatch) -> Tensor:
    """Mean squared error of the block's valid output rows, with ``tensors`` in place of its parameters, by name."""
    with FastLinears():
        output = functional_call(module, dict(tensors), (batch.hidden,), batch.kwargs)
    found: Tensor = output if batch.valid is None else output[batch.valid]
    if batch.weights is None:
        return nn.functional.mse_loss(found, batch.target)
    return ((found - batch.target).square() * batch.weights).mean()


@torch.no_grad()
def reconstruction_error(module: nn.Module, tensors: Mapping[str, Tensor], batches: Sequence[Minibatch]) -> float:
    """Mean of :func:`block_loss` over ``batches``."""
    return sum(float(block_loss(module, tensors, batch)) for batch in batches) / len(batches)


def train(
    module: nn.Module,
    tensors: Tensors,
    steps: Sequence[Minibatch],
    optimizer: torch.optim.Optimizer,
    seen: Callable[[float], None] = lambda _: None,
) -> None:
    """Takes one optimiser step a minibatch; gradients are on inside, whatever the caller set.

    Args:
        module: the block.
        tensors: gives the block's tensors by name, from the parameters under the optimiser.
        steps: the minibatches, in the order and as often as they are to be seen.
        optimizer: holds the parameters, in groups with their learning rates.
        seen: is told every minibatch's loss before the step that follows from it.

    Raises:
        UserError: the loss is no longer finite.
    """
    with torch.enable_grad():
        for batch in progress(steps, "steps"):
            loss = block_loss(module, tensors(), batch)
            if not torch.isfinite(loss):
                problem = f"learning diverged: the block's reconstruction error is {float(loss.detach())}"
                raise UserError("method", problem, "Lower the learning rates of the method")
            seen(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def train_epochs(
    module: nn.Module,
    tensors: Tensors,
    batches: Sequence[Minibatch],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    best_of: int,
) -> None:
    """Goes over ``batches`` so often, and leaves the parameters as they were after the best of the last passes.

    Rounding makes the loss jump by some percent from pass to pass, long after it has stopped falling; the last one is
    as likely as not a bad one.

    Args:
        module: as in :func:`train`, like ``tensors`` and ``optimizer``.
        tensors: gives the block's tensors by name.
        batches: the minibatches, in the order they are to be seen.
        optimizer: holds the parameters.
        epochs: number of passes.
        best_of: how many of the last passes are compared, by the mean loss over ``batches`` at their ends.

    Raises:
        UserError: the loss is no longer finite.
    """
    best = Best(optimizer)
    for remaining in progress(range(epochs)[::-1], "passes"):
        train(module, tensors, batches, optimizer)
        if remaining < best_of:
            with torch.no_grad():
                best.offer(reconstruction_error(module, tensors(), batches))
    best.restore()


class Best:
    """The parameters of ``optimizer`` as they were when some error was least."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._least = math.inf
        self._kept: list[Tensor] = []

    def offer(self, error: float) -> None:
        """Keeps the parameters as they are now if ``error`` is below all before."""
        if error < self._least:
            self._least, self._kept = error, [each.detach().clone() for each in self._parameters]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts back what was kept."""
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.copy_(kept)
