"""Gathers the statistics of a block's links while the block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from src.calib.running_statistics import RunningStatistics
from src.calib.task import BlockTask
from src.models.graph import Link
from src.quant.linear import QuantLinear
from src.quant.link_statistics import LinkStatistics


def observe(
    task: BlockTask, model: nn.Module, links: Sequence[Link], *, gram: bool, weights: list[Tensor] | None
) -> tuple[list[Tensor], dict[str, LinkStatistics]]:
    """Runs the block once.

    Args:
        task: the block and its inputs.
        model: the whole model, in which the links' paths are looked up.
        links: links inside the block whose rows are the block's own.
        gram: whether to collect Gram matrices.
        weights: weight of every row, ``[batch, rows]`` a batch; see :meth:`RunningStatistics.update`.

    Returns:
        The block's outputs, and the statistics by link name.
    """
    device = task.inputs[0].hidden.device
    running = {link.name: _running(model, link, gram=gram, device=device) for link in links}
    outputs = []
    for number, batch in enumerate(task.inputs):
        made = []
        for clips, part in batch.parts():
            row_weights = None if weights is None else weights[number][clips][part.valid]
            with _recorded(model, links, running, part.valid, row_weights):
                made.append(part.run(task.module))
        outputs.append(torch.cat(made))
    return outputs, {name: each.finish() for name, each in running.items()}


def valid_rows(x: Tensor, valid: Tensor) -> Tensor:
    """Rows [valid rows, d] of ``x`` [batch, rows, d]; a view where no row is padding."""
    return x.flatten(0, 1) if valid.all() else x[valid]


def _running(model: nn.Module, link: Link, *, gram: bool, device: torch.device) -> RunningStatistics:
    weight = model.get_parameter(f"{link.linears[0]}.weight")
    return RunningStatistics(weight.shape[1], gram=gram, device=device)


@contextmanager
def _recorded(
    model: nn.Module,
    links: Sequence[Link],
    running: dict[str, RunningStatistics],
    valid: Tensor,
    weights: Tensor | None,
) -> Iterator[None]:
    """Inside, what the links carry is added to their statistics."""
    handles = [
        model.get_submodule(link.linears[0]).register_forward_pre_hook(_recorder(running[link.name], valid, weights))
        for link in links
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(
    running: RunningStatistics, valid: Tensor, weights: Tensor | None
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = module.rotated(inputs[0]) if isinstance(module, QuantLinear) else inputs[0]
        running.update(valid_rows(x, valid), weights)

    return record
