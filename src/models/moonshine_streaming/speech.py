"""Moonshine Streaming: a :class:`~src.models.speech.SpeechModel` around transformers' implementation.

The front-end normalises every 5 ms of audio by themselves (mean, deviation, then ``asinh(k x)``), and its convolutions
look back only, so nothing but the last frames of a clip knows of padding. It still runs on each utterance alone, as
transformers would with the mask of one: an incomplete last piece of 5 ms is silence. An utterance is heard whole, as
the leaderboard does; the windows of the encoder are those of streaming all the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, silu
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask

from src.models.cache_argument import cached
from src.models.moonshine.speech import MoonshineSpeech
from src.models.moonshine_streaming.graph import streaming_graph
from src.models.moonshine_streaming.original import ADAPTER
from src.models.moonshine_streaming.parts import windows
from src.models.speech import Encoded


class StreamingSpeech(MoonshineSpeech):
    """Bound on tokens and decoder inputs are Moonshine's. ``module`` went through ``Family.prepare``."""

    _graph = staticmethod(streaming_graph)

    @property
    def window(self) -> int:
        """Moonshine's, or what the table of positions holds, a row of which is four pieces of audio."""
        positions: int = self.module.config.max_position_embeddings
        return min(super().window, 4 * self._shortest * positions)

    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """Front-end an utterance at a time, and a mask for each of the encoder's windows."""
        frames = [self._frontend(waveform.to(self.device, self.module.dtype)) for waveform in features]
        hidden = pad_sequence(frames, batch_first=True)
        lengths = torch.tensor([len(frame) for frame in frames], device=self.device)
        mask = torch.arange(hidden.shape[1], device=self.device) < lengths.unsqueeze(1)
        config = self.module.config.encoder_config
        masks = tuple(
            create_bidirectional_mask(
                config=config, inputs_embeds=hidden, attention_mask=mask, and_mask_function=partial(_sees, *window)
            )
            for window in windows(config.sliding_windows)
        )
        return hidden, {"attention_mask": masks}, mask

    def encoded(self, hidden: Tensor, mask: Tensor) -> Encoded:
        """The adapter's output: norm, positions, and projection where there is one."""
        normed = super().encoded(hidden, mask)
        return Encoded(self.module.get_submodule(ADAPTER)(normed.states), mask)

    def decoder_states(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None = None) -> Tensor:
        """Block by block: transformers' decoder would run the adapter again."""
        hidden, arguments = self._decoder_inputs(tokens, encoded, cache)
        for block in self.graph.decoder:
            module = self.block(block)
            hidden = module(hidden, **arguments, **cached(type(module).forward, cache))
        states: Tensor = self.module.get_submodule(self.graph.decoder_norm)(hidden)
        return states

    def _frontend(self, waveform: Tensor) -> Tensor:
        """Of one utterance: ``[samples]`` to ``[frames, d]``."""
        embedder = self.module.model.encoder.embedder
        padding = -len(waveform) % embedder.frame_len
        pieces = pad(waveform, (0, padding)).view(1, -1, embedder.frame_len)
        hidden = silu(embedder.linear(embedder.comp(embedder.cmvn(pieces)))).transpose(1, 2)
        if padding:
            hidden = pad(hidden[..., :-1], (0, 1))
        hidden, _ = embedder.conv1(hidden)
        hidden, _ = embedder.conv2(silu(hidden))
        frames: Tensor = hidden[0].T
        return frames

    @staticmethod
    def _receptive_field(encoder: torch.nn.Module) -> int:
        """Samples the front-end needs to make one frame."""
        embedder: Any = encoder.get_submodule("embedder")
        samples: int = embedder.frame_len
        return samples


def _sees(past: int, ahead: int, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
    """Whether a frame sees another: itself and those before, ``past`` in all, and fewer than ``ahead`` after it."""
    distance = query - key
    return (distance > -max(ahead, 1)) & (distance < past)
