"""Gathers the statistics of a block's links while the block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from src.calib.output_weights import OutputWeights
from src.calib.running_statistics import About, RunningStatistics
from src.calib.task import BlockInput, BlockTask
from src.models.graph import Link, RowKind
from src.quant.linear import QuantLinear
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class Unrounded:
    """A block before it is rounded, and what it is fed in a model that is not: cross-Gram matrices compare with it."""

    module: nn.Module
    inputs: list[BlockInput]


@dataclass
class Observed:
    """What one run of a block gave.

    Attributes:
        outputs: of the block, ``[batch, rows, d]`` a batch.
        targets: of the unrounded block that ran beside it, likewise; empty where none did.
        statistics: by link name.
    """

    outputs: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    statistics: dict[str, LinkStatistics] = field(default_factory=dict)


class Observer:
    """Runs one block and measures its links.

    Args:
        task: the block and its inputs.
        gram: whether to collect Gram matrices.
        weights: weight of every row, ``[batch, rows]`` a batch; see :class:`About`.
        rare: which rows are rare, bool ``[batch, rows]`` a batch; likewise.
        outputs: what rows count for groups of output channels; likewise.
        unrounded: asks for cross-Gram matrices. It runs in lockstep with the block: rows are kept of no more clips than
            go through a block at once.
    """

    def __init__(
        self,
        task: BlockTask,
        *,
        gram: bool,
        weights: list[Tensor] | None = None,
        rare: list[Tensor] | None = None,
        outputs: OutputWeights | None = None,
        unrounded: Unrounded | None = None,
    ) -> None:
        self._task = task
        self._gram = gram
        self._weights = weights
        self._rare = rare
        self._outputs = outputs
        self._unrounded = unrounded

    def run(self, links: Sequence[Link]) -> Observed:
        """Runs the block once and measures ``links``, which lie inside it and have its rows."""
        found, running = Observed(), {link.name: self._running(link) for link in links}
        for number, batch in enumerate(self._task.inputs):
            outputs, targets = [], []
            for clips, part in batch.parts():
                beside: dict[str, Tensor] = {}
                if self._unrounded is not None:
                    with self._heard(links, self._unrounded.module, part.valid, beside.__setitem__):
                        targets.append(self._unrounded.inputs[number].part(clips).run(self._unrounded.module))
                record = self._recorder(links, running, beside, number, clips, part.valid)
                with self._heard(links, self._task.module, part.valid, record):
                    outputs.append(part.run(self._task.module))
            found.outputs.append(torch.cat(outputs))
            found.targets += [torch.cat(targets)] if targets else []
        found.statistics = {name: each.finish() for name, each in running.items()}
        return found

    def measure(self, link: Link) -> LinkStatistics:
        """Runs the block as far as ``link``, with whatever is rounded by now, and measures that link alone."""
        running = {link.name: self._running(link)}
        for number, batch in enumerate(self._task.inputs):
            for clips, part in batch.parts():
                beside: dict[str, Tensor] = {}
                if self._unrounded is not None:
                    with self._heard([link], self._unrounded.module, part.valid, _and_stop(beside.__setitem__)):
                        self._unrounded.inputs[number].part(clips).run(self._unrounded.module)
                record = self._recorder([link], running, beside, number, clips, part.valid)
                with self._heard([link], self._task.module, part.valid, _and_stop(record)):
                    part.run(self._task.module)
        return running[link.name].finish()

    def _running(self, link: Link) -> RunningStatistics:
        weight = self._task.module.get_parameter(f"{self._within(link)}.weight")
        cross = self._unrounded is not None
        return RunningStatistics(weight.shape[1], gram=self._gram, device=weight.device, cross=cross)

    def _within(self, link: Link) -> str:
        """Where the first of the link's linears is inside the block, which may be a copy."""
        return link.linears[0].removeprefix(f"{self._task.block.path}.")

    @contextmanager
    def _heard(self, links: Sequence[Link], module: nn.Module, valid: Tensor, hear: Receiver) -> Iterator[None]:
        """Inside, ``hear`` is told what the links carry while the block ``module`` runs."""
        handles = [
            module.get_submodule(self._within(link)).register_forward_pre_hook(_listener(link, valid, hear))
            for link in links
        ]
        try:
            with suppress(_Heard):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _recorder(
        self,
        links: Sequence[Link],
        running: Mapping[str, RunningStatistics],
        beside: Mapping[str, Tensor],
        batch: int,
        clips: slice,
        valid: Tensor,
    ) -> Receiver:
        """Adds to the statistics of one of ``links`` what it carries for ``clips`` of a batch."""
        weights, rare = (None if each is None else each[batch][clips][valid] for each in (self._weights, self._rare))
        outputs = {} if self._outputs is None else {link.name: self._outputs.of([link], batch, clips) for link in links}
        alike = {link.name for link in links if link.rows is RowKind.POSITION}  # such rows are no clip's

        def record(name: str, x: Tensor) -> None:
            counts = (None, None) if name in alike else (weights, rare)
            running[name].update(x, About(*counts, beside.get(name), outputs.get(name, {})))

        return record


Receiver = Callable[[str, Tensor], None]  # takes a link's name and the rows [valid rows, in] that it carries


class _Heard(Exception):  # noqa: N818 - not an error: the rest of the block need not run
    """Ends a run at the link that was waited for."""


def _and_stop(hear: Receiver) -> Receiver:
    def heard(name: str, x: Tensor) -> None:
        hear(name, x)
        raise _Heard

    return heard


def _listener(link: Link, valid: Tensor, hear: Receiver) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def listen(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = read_by(module, inputs[0])
        hear(link.name, x.flatten(0, 1) if link.rows is RowKind.POSITION else valid_rows(x, valid))

    return listen


def read_by(linear: nn.Module, x: Tensor) -> Tensor:
    """What the weight of ``linear`` is multiplied with where its input is ``x`` [..., in], before it is rounded."""
    return linear.rotated(x) if isinstance(linear, QuantLinear) else x


def valid_rows(x: Tensor, valid: Tensor) -> Tensor:
    """Rows [valid rows, d] of ``x`` [batch, rows, d]; a view where no row is padding."""
    return x.flatten(0, 1) if valid.all() else x[valid]


class LinkByLink(Mapping[str, LinkStatistics]):
    """Statistics by link name, each measured when it is first asked for: its predecessors may be rounded by then.

    Args:
        known: what is measured already.
        links: the others, inside a block.
        measure: measures one of them.
    """

    def __init__(
        self,
        known: Mapping[str, LinkStatistics],
        links: Sequence[Link],
        measure: Callable[[Link], LinkStatistics],
    ) -> None:
        self._known = dict(known)
        self._links = {link.name: link for link in links}
        self._measure = measure

    def __getitem__(self, name: str) -> LinkStatistics:
        if name not in self._known:
            self._known[name] = self._measure(self._links[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._known, *self._links)))

    def __len__(self) -> int:
        return len(self._known.keys() | self._links.keys())
