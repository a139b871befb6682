"""Feeds calibration clips through the encoder and the decoder, one block at a time.

Only the inputs of the current block are kept. Rows that are padding never reach a statistic. The decoder sees the
teacher's tokens (the fp model's own transcripts) and the encoder output of whichever encoder was walked before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.calib.capture import Calibration
from src.calib.stats import RunningStatistics
from src.methods.base import LinkStatistics
from src.models.graph import Block, Link, Rows
from src.models.speech import Encoded, SpeechModel
from src.runtime import progress

BlockHook = Callable[[Block, dict[str, LinkStatistics]], None]


@dataclass
class _Batch:
    hidden: Tensor  # [batch, rows, d]: input of the next block
    kwargs: dict[str, Any]  # what else the block takes: masks, position embeddings, encoder states
    valid: Tensor  # bool [batch, rows]: False where a row is padding


class _Observer:
    """Gathers the statistics of one block's links with forward pre-hooks."""

    def __init__(self, module: nn.Module, links: Sequence[Link], *, gram: bool, device: torch.device) -> None:
        self._running: dict[str, RunningStatistics] = {}
        self._handles = []
        self.valid: Tensor | None = None
        for link in links:
            linear = module.get_submodule(link.linears[0])
            running = RunningStatistics(int(linear.in_features), gram=gram, device=device)  # type: ignore[arg-type]
            self._running[link.name] = running
            self._handles.append(linear.register_forward_pre_hook(self._hook(running)))

    def _hook(self, running: RunningStatistics) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert self.valid is not None
            running.update(inputs[0][self.valid])

        return record

    def finish(self) -> dict[str, LinkStatistics]:
        for handle in self._handles:
            handle.remove()
        return {name: running.finish() for name, running in self._running.items()}


class Walker:
    """Walks one model over one calibration set.

    ``gram`` asks for Gram matrices beside the cheap statistics. Where ``refresh`` is true, a block runs again after
    ``on_block`` has changed its weights, so that its successors see inputs from quantized predecessors.
    """

    def __init__(self, speech: SpeechModel, calibration: Calibration, *, gram: bool, refresh: bool) -> None:
        self._speech = speech
        self._calibration = calibration
        self._gram = gram
        self._refresh = refresh

    @torch.inference_mode()
    def walk(self, on_block: BlockHook) -> None:
        """Calls ``on_block(block, statistics by link name)`` for every block, encoder first."""
        graph = self._speech.graph
        encoder_batches = self._encoder_batches()
        for block in progress(graph.encoder, "encoder blocks"):
            self._step(block, encoder_batches, {}, on_block)
        encoded = [self._encoded(batch) for batch in encoder_batches]
        shared = self._encoder_output_statistics(encoded)
        decoder_batches = self._decoder_batches(encoded)
        for block in progress(graph.decoder, "decoder blocks"):
            self._step(block, decoder_batches, shared, on_block)

    def _step(
        self, block: Block, batches: list[_Batch], shared: dict[str, LinkStatistics], on_block: BlockHook
    ) -> None:
        links = {self._speech.graph.link_of(linear.path).name: None for linear in block.linears}
        own = [link for link in self._speech.graph.links if link.name in links and link.name not in shared]
        observer = _Observer(self._speech.module, own, gram=self._gram, device=self._speech.device)
        outputs = self._run(block, batches, observer)
        on_block(block, {**shared, **observer.finish()})
        if self._refresh:
            outputs = self._run(block, batches)
        for batch, output in zip(batches, outputs, strict=True):
            batch.hidden = output

    def _run(self, block: Block, batches: list[_Batch], observer: _Observer | None = None) -> list[Tensor]:
        module = self._speech.module.get_submodule(block.path)
        outputs = []
        for batch in batches:
            if observer is not None:
                observer.valid = batch.valid
            outputs.append(module(batch.hidden, **batch.kwargs))
        return outputs

    def _encoder_batches(self) -> list[_Batch]:
        batches = []
        for features, _ in self._calibration.batches():
            hidden, kwargs, valid = self._speech.encoder_inputs(features)
            batches.append(_Batch(hidden, kwargs, valid))
        return batches

    def _encoded(self, batch: _Batch) -> Encoded:
        norm = self._speech.module.get_submodule(self._speech.graph.encoder_norm)
        return Encoded(norm(batch.hidden), batch.valid)

    def _encoder_output_statistics(self, encoded: list[Encoded]) -> dict[str, LinkStatistics]:
        """Statistics of the links that read the encoder's output: the cross-attention k and v of all blocks."""
        graph = self._speech.graph
        decoder_linears = {linear.path for block in graph.decoder for linear in block.linears}
        links = [link for link in graph.links if link.rows is Rows.FRAME and link.linears[0] in decoder_linears]
        running = RunningStatistics(encoded[0].states.shape[-1], gram=self._gram, device=self._speech.device)
        for item in encoded:
            running.update(item.states[item.mask])
        statistics = running.finish()
        return {link.name: statistics for link in links}

    def _decoder_batches(self, encoded: list[Encoded]) -> list[_Batch]:
        batches = []
        for (_, tokens), item in zip(self._calibration.batches(), encoded, strict=True):
            padded, valid = self._calibration.pad(tokens, self._speech.eos, self._speech.device)
            hidden, kwargs = self._speech.decoder_inputs(padded, item)
            batches.append(_Batch(hidden, kwargs, valid))
        return batches
