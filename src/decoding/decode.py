"""Greedy decoding of a batch, token for token what each utterance would give alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, EncoderDecoderCache

from src.data.utterance import Utterance
from src.decoding.clock import Clock
from src.decoding.ctc import best_path
from src.decoding.kernels import inference_kernels
from src.models.speech import Encoded, SpeechModel
from src.quant.fake import tell_frames


def batches(
    utterances: Sequence[Utterance], batch_size: int, apart: Callable[[Utterance], bool] = lambda _: False
) -> list[list[int]]:
    """Positions of the utterances in batches of similar length; the same for any order of the list.

    Window by window, so that audio is read in the order in which it lies on disk; longest first in each. Those for
    which ``apart`` is true share no batch with the others.
    """

    def group(index: int) -> tuple[int, bool]:
        return utterances[index].window, apart(utterances[index])

    def key(index: int) -> tuple[tuple[int, bool], int, str]:
        return group(index), -utterances[index].samples, utterances[index].id

    plan = []
    for _, members in groupby(sorted(range(len(utterances)), key=key), group):
        alike = list(members)
        plan += [alike[start : start + batch_size] for start in range(0, len(alike), batch_size)]
    return plan


@dataclass(frozen=True)
class Constraint:
    """Another way to write than the model's usual one.

    Attributes:
        prompt: token ids to start with.
        cap: most tokens after it, of every utterance.
        rules: takes logits ``[batch, vocab]`` and what each row has written, ``[batch, steps]``; returns logits that
            are minus infinity where a token is not allowed.
    """

    prompt: tuple[int, ...]
    cap: int
    rules: Callable[[Tensor, Tensor], Tensor]


@torch.inference_mode()
def greedy(
    speech: SpeechModel,
    features: list[Tensor],
    samples: Sequence[int],
    *,
    suppress: bool,
    kv_layer: Callable[[], CacheLayerMixin] = DynamicLayer,
    clock: Clock | None = None,
    constraint: Constraint | None = None,
) -> list[list[int]]:
    """The most likely token at each step, until the end token or the utterance's own cap; or of each frame, for CTC.

    Args:
        speech: the recogniser.
        features: its :meth:`~src.models.speech.SpeechModel.features`, one an utterance.
        samples: audio samples of each utterance, which set its cap on new tokens.
        suppress: whether tokens that the checkpoint's generation settings forbid are never emitted.
        kv_layer: makes a layer of the key and value cache; a quantizing one simulates a quantized cache.
        clock: is told the seconds of ``encode`` and ``decode``.
        constraint: replaces the model's own prompt and caps and restricts what may follow.

    Returns:
        Token ids of each utterance, without the prompt and the end token.
    """
    clock = clock or Clock(speech.device)
    with inference_kernels(speech.module):
        with clock.part("encode"):
            encoded = encode(speech, features)
        with clock.part("decode"):
            if speech.blank is not None:
                return best_path(speech.frame_logits(encoded), encoded.mask, speech.blank)
            return _decode(speech, encoded, samples, suppress=suppress, kv_layer=kv_layer, constraint=constraint)


def encode(speech: SpeechModel, features: list[Tensor]) -> Encoded:
    """:meth:`~src.models.speech.SpeechModel.encode`, on a CPU one utterance after the other.

    There nothing is gained by a batch: what one utterance's frames leave in the caches, those of others displace, and
    without a batch there is no padding either.
    """
    if speech.device.type != "cpu":
        return speech.encode(features)
    alone = [speech.encode([feature]) for feature in features]
    frames = max(each.states.shape[1] for each in alone)
    states = torch.cat([pad(each.states, (0, 0, 0, frames - each.states.shape[1])) for each in alone])
    return Encoded(states, torch.cat([pad(each.mask, (0, frames - each.mask.shape[1])) for each in alone]))


@torch.inference_mode()
def warm_up(speech: SpeechModel, batch_size: int) -> None:
    """Encodes silence and takes two decoding steps, so that what is set up at the first use is not timed."""
    silence = speech.features([np.zeros(speech.sampling_rate, np.float32)])
    features = silence * (1 if speech.device.type == "cpu" else batch_size)
    with inference_kernels(speech.module):
        encoded = encode(speech, features)
        if speech.blank is not None:
            return
        cache = speech.new_cache()
        tokens = torch.tensor(speech.prompt, device=speech.device).expand(len(features), -1)
        for _ in range(2):
            tokens = speech.decode_step(tokens, encoded, cache).argmax(dim=-1, keepdim=True)


def _decode(
    speech: SpeechModel,
    encoded: Encoded,
    samples: Sequence[int],
    *,
    suppress: bool,
    kv_layer: Callable[[], CacheLayerMixin],
    constraint: Constraint | None,
) -> list[list[int]]:
    """Token ids of each utterance; changes ``encoded``."""
    cache = speech.new_cache(kv_layer)
    tell_frames(cache, encoded.mask)
    device = encoded.states.device
    prompt = speech.prompt if constraint is None else constraint.prompt
    caps = torch.tensor(
        [speech.max_new_tokens(count) if constraint is None else constraint.cap for count in samples], device=device
    )
    longest = int(caps.max())
    emitted = torch.full((len(samples), longest), speech.eos, dtype=torch.long, device=device)
    forbidden = [speech.suppressed(first_step=first) for first in (True, False)] if suppress else None
    rows = torch.arange(len(samples), device=device)  # the utterance each row of the shrinking batch belongs to
    tokens = torch.tensor(prompt, device=device).expand(len(samples), -1)
    for step in range(longest):
        logits = speech.decode_step(tokens, encoded, cache)
        if forbidden is not None:
            logits.index_fill_(1, forbidden[min(step, 1)], float("-inf"))
        if constraint is not None:
            logits = constraint.rules(logits, emitted[rows, :step])
        best = logits.argmax(dim=-1)
        emitted[rows, step] = best
        running = (best != speech.eos) & (caps > step + 1)
        count = int(running.sum())
        if count == 0:
            break
        if count < len(running):
            packed = _Packing.of(running, count)
            encoded = Encoded(packed(encoded.states), packed(encoded.mask))
            rows, caps, best = packed(rows), packed(caps), packed(best)
            packed.cache(cache)
        tokens = best.unsqueeze(1)
    return [_until(row, speech.eos) for row in emitted.tolist()]


@dataclass(frozen=True)
class _Packing:
    """How finished utterances leave a batch: the last rows take their places.

    So a row costs one copy of a row, in place; a cache of 30 s windows is too large to be copied for each that leaves.

    Attributes:
        count: rows that go on.
        gaps: rows among the first ``count`` that are finished.
        movers: rows behind them that are not, one for each gap.
    """

    count: int
    gaps: Tensor
    movers: Tensor

    @classmethod
    def of(cls, running: Tensor, count: int) -> _Packing:
        """The packing of a batch of which ``count`` rows, those ``running`` (bool), go on."""
        gaps, movers = (~running[:count]).nonzero(), running[count:].nonzero() + count
        return cls(count, gaps.squeeze(1), movers.squeeze(1))

    def __call__(self, x: Tensor) -> Tensor:
        """The rows of ``x`` that go on; changes ``x``."""
        x[self.gaps] = x[self.movers]
        return x[: self.count]

    def cache(self, cache: EncoderDecoderCache) -> None:
        """Keeps the rows that go on."""
        for layer in (*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers):
            layer.keys, layer.values = self(layer.keys), self(layer.values)


def _until(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos)] if eos in tokens else tokens
