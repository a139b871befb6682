"""Feeds calibration clips through the encoder and the decoder, one block at a time.

Only the inputs of the current block are kept. Rows that are padding never reach a statistic. The decoder sees the
teacher's tokens (the fp model's own transcripts) and the encoder output of whichever encoder was walked before it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from src.calib.capture import Calibration
from src.calib.observe import LinkByLink, Observer, Unrounded, read_by, valid_rows
from src.calib.output_weights import OutputWeights
from src.calib.running_statistics import About, RunningStatistics
from src.calib.task import BlockInput, BlockTask
from src.machine.progress import progress
from src.models.cache_argument import cached
from src.models.graph import Block, Link
from src.models.speech import Encoded, SpeechModel
from src.quant.forced_cache import ForcedCache
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class WalkOptions:
    """What a walk collects and how it goes on.

    Attributes:
        gram: collect Gram matrices beside the cheap statistics.
        refresh: run a block again after ``on_block`` changed it, so that its successors see inputs from quantized
            predecessors.
        targets: carry a second, full-precision stream along and give every task its targets.
        cross: collect cross-Gram matrices with that stream.
        link_by_link: measure a link when ``on_block`` first asks for its statistics, on inputs from what it has rounded
            by then, and not all links of a block before anything of it is rounded.
        kv_layer: makes a layer of the quantized key-value cache, which decoder blocks read, but for the targets; None
            where the cache has 16 bits.
        label: what the walk is for, where its progress is shown.
    """

    gram: bool
    refresh: bool = False
    targets: bool = False
    cross: bool = False
    link_by_link: bool = False
    kv_layer: Callable[[], DynamicLayer] | None = None
    label: str = "statistics"


@dataclass(frozen=True, eq=False)
class _Shared:
    """Statistics by name of links that reach over several blocks.

    Attributes:
        links: these links.
        measure: ``measure(linear)``, what they carry to one of their linears.
        statistics: what they carry to those that read it as it is.
    """

    links: tuple[Link, ...] = ()
    measure: Callable[[nn.Module | None], Mapping[str, LinkStatistics]] = lambda _: {}
    statistics: Mapping[str, LinkStatistics] = field(default_factory=dict)

    def of(self, task: BlockTask) -> Mapping[str, LinkStatistics]:
        """What they carry to the block's linears, as these are now."""
        for link in self.links:
            for path in link.linears:
                if path.startswith(f"{task.block.path}."):
                    return self.measure(task.module.get_submodule(path.removeprefix(f"{task.block.path}.")))
        return self.statistics


class Walker:
    """Walks one model over one calibration set.

    ``weigh(task)`` may return a weight for every row, which then enters the Gram matrices, and ``rare(task)`` the rows
    that count there as much together as all others. ``outputs`` adds Gram matrices of groups of output channels: by
    path of a linear, what each row counts in them, [groups, rows] a clip. Within ``unrounded()``, the front-end and the
    embedding are at full precision; that is where the full-precision stream starts. Of a block that is
    ``finished(block)``, nothing is measured: ``on_block`` knows what to make of it.
    """

    def __init__(
        self,
        speech: SpeechModel,
        calibration: Calibration,
        options: WalkOptions,
        weigh: Callable[[BlockTask], list[Tensor] | None] = lambda _: None,
        rare: Callable[[BlockTask], list[Tensor] | None] = lambda _: None,
        outputs: Mapping[str, Sequence[Tensor]] | None = None,
        unrounded: Callable[[], AbstractContextManager[None]] = nullcontext,
        finished: Callable[[Block], bool] = lambda _: False,
    ) -> None:
        self._speech = speech
        self._calibration = calibration
        self._options = options
        self._weigh = weigh
        self._rare = rare
        self._outputs = OutputWeights(outputs or {}, calibration.batch_size)
        self._unrounded = unrounded
        self._finished = finished

    @torch.no_grad()
    def walk(self, on_block: Callable[[BlockTask], None]) -> None:
        """Calls ``on_block`` for every block, encoder first. Gradients are off; a method that fits turns them on."""
        graph = self._speech.graph
        stream = self._encoder_inputs()
        with self._unrounded():
            reference = self._encoder_inputs() if self._options.targets or self._options.cross else None
        shared = _Shared()
        for block in progress(graph.blocks, f"{self._options.label}, blocks"):
            if block in graph.decoder[:1]:
                encoded, unrounded = self._encoded(stream), None
                stream = self._decoder_inputs(encoded, self._options.kv_layer)
                if reference is not None:
                    with self._unrounded():
                        unrounded = self._encoded(reference)
                        reference = self._decoder_inputs(unrounded, None)
                shared = self._encoder_output(encoded, unrounded if self._options.cross else None)
            self._step(block, stream, reference, shared, on_block)

    def _step(
        self,
        block: Block,
        stream: list[BlockInput],
        reference: list[BlockInput] | None,
        shared: _Shared,
        on_block: Callable[[BlockTask], None],
    ) -> None:
        """One block: targets, statistics, ``on_block``, and the next block's inputs."""
        task, options = BlockTask(block, self._speech.block(block), stream), self._options
        finished = self._finished(block)
        if reference is not None and (finished or options.link_by_link or not options.cross):
            task.targets = task.outputs(reference)
        outputs: list[Tensor] = []
        if not finished:
            outputs = self._measure(task, reference if options.cross else None, shared)
        elif not options.refresh:
            outputs = task.outputs()
        on_block(task)
        if reference is not None:
            _advance(reference, task.targets)
        if block is not self._speech.graph.blocks[-1]:  # nothing follows the last
            _advance(stream, task.outputs() if options.refresh else outputs)

    def _measure(self, task: BlockTask, reference: list[BlockInput] | None, shared: _Shared) -> list[Tensor]:
        """Tells the task what its links carry; returns the block's outputs where it had to run for that."""
        links = [link for link in self._links(task.block) if link not in shared.links]
        by_link = self._options.link_by_link
        weights, rare = _product([each.weights for each in task.inputs], self._weigh(task)), self._rare(task)

        def observer() -> Observer:
            unrounded = None
            if reference is not None:
                unrounded = Unrounded(copy.deepcopy(task.module) if by_link else task.module, reference)
            return Observer(
                task, gram=self._options.gram, weights=weights, rare=rare, outputs=self._outputs, unrounded=unrounded
            )

        def again() -> Mapping[str, LinkStatistics]:
            known = shared.of(task)
            if by_link:
                return LinkByLink(known, links, observer().measure)
            return {**known, **observer().run(links).statistics}

        task.measure = again
        if by_link:
            task.statistics = LinkByLink(shared.statistics, links, observer().measure)
            return []
        observed = observer().run(links)
        task.statistics = {**shared.statistics, **observed.statistics}
        task.targets = observed.targets or task.targets
        return observed.outputs

    def _links(self, block: Block) -> list[Link]:
        paths = {linear.path for linear in block.linears}
        return [link for link in self._speech.graph.links if paths.intersection(link.linears)]

    def _encoder_inputs(self) -> list[BlockInput]:
        inputs = [BlockInput(*self._speech.encoder_inputs(features)) for features, _ in self._calibration.batches()]
        weights = self._calibration.frame_weights(self._speech, inputs[0].hidden.shape[1])
        for each, counts in zip(inputs, weights or [], strict=weights is not None):
            each.weights = counts
        return inputs

    def _encoded(self, stream: list[BlockInput]) -> list[Encoded]:
        return [self._speech.encoded(each.hidden, each.valid) for each in stream]

    def _encoder_output(self, encoded: list[Encoded], unrounded: list[Encoded] | None) -> _Shared:
        """The links that read the encoder's output: the cross-attention k and v of all blocks.

        ``unrounded`` is that output in the model that is not rounded, for the cross-Gram matrix.
        """
        links = list(self._speech.graph.cross_links)
        measure = partial(self._encoder_output_statistics, links, encoded, unrounded)
        return _Shared(tuple(links), measure, measure(None))

    def _encoder_output_statistics(
        self, links: list[Link], encoded: list[Encoded], unrounded: list[Encoded] | None, reader: nn.Module | None
    ) -> Mapping[str, LinkStatistics]:
        """Of the encoder's output as the linear ``reader`` reads it, or as it is."""

        def rows(states: Tensor, mask: Tensor) -> Tensor:
            return valid_rows(states if reader is None else read_by(reader, states), mask)

        frames, width = encoded[0].states.shape[1:]
        weights, cross = self._calibration.frame_weights(self._speech, frames), unrounded is not None
        running = RunningStatistics(width, gram=self._options.gram, device=self._speech.device, cross=cross)
        for number, each in enumerate(encoded):
            beside = None if unrounded is None else rows(unrounded[number].states, each.mask)
            counts = None if weights is None else weights[number][each.mask]
            about = About(counts, unrounded=beside, outputs=self._outputs.of(links, number))
            running.update(rows(each.states, each.mask), about)
        statistics = running.finish()
        return {link.name: statistics for link in links}

    def _decoder_inputs(self, encoded: list[Encoded], kv_layer: Callable[[], DynamicLayer] | None) -> list[BlockInput]:
        stream = []
        for (_, tokens), each in zip(self._calibration.batches(), encoded, strict=True):
            padded, valid = self._calibration.pad(tokens, self._speech.eos, self._speech.device)
            hidden, kwargs = self._speech.decoder_inputs(padded, each)
            if kv_layer is not None:
                first = type(self._speech.block(self._speech.graph.decoder[0]))
                kwargs |= cached(first.forward, ForcedCache(kv_layer, each.mask))
            stream.append(BlockInput(hidden, kwargs, valid))
        return stream


def _product(weights: Sequence[Tensor | None], others: list[Tensor] | None) -> list[Tensor] | None:
    """What rows count where both say something about it, batch by batch."""
    known = [each for each in weights if each is not None]  # all or none
    if not known:
        return others
    return known if others is None else [own * other for own, other in zip(known, others, strict=True)]


def _advance(stream: list[BlockInput], outputs: list[Tensor]) -> None:
    for each, output in zip(stream, outputs, strict=True):
        each.hidden = output
