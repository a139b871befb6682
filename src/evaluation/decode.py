"""Greedy decoding of a batch, token for token what each utterance would give alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from src.data.utterance import Utterance
from src.models.speech import SpeechModel
from src.quant.fake import tell_frames


def batches(utterances: Sequence[Utterance], batch_size: int) -> list[list[int]]:
    """Positions of the utterances in batches of similar length; the same for any order of the list.

    Window by window, so that audio is read in the order in which it lies on disk; longest first in each.
    """

    def key(index: int) -> tuple[int, int, str]:
        return utterances[index].window, -utterances[index].samples, utterances[index].id

    plan = []
    for _, group in groupby(sorted(range(len(utterances)), key=key), lambda index: utterances[index].window):
        window = list(group)
        plan += [window[start : start + batch_size] for start in range(0, len(window), batch_size)]
    return plan


@torch.inference_mode()
def greedy(
    speech: SpeechModel,
    features: list[Tensor],
    samples: Sequence[int],
    *,
    suppress: bool,
    kv_layer: Callable[[], CacheLayerMixin] = DynamicLayer,
) -> list[list[int]]:
    """The most likely token at each step, until the end token or the utterance's own cap.

    Args:
        speech: the recogniser.
        features: its :meth:`~src.models.speech.SpeechModel.features`, one an utterance.
        samples: audio samples of each utterance, which set its cap on new tokens.
        suppress: whether tokens that the checkpoint's generation settings forbid are never emitted.
        kv_layer: makes a layer of the key and value cache; a quantizing one simulates a quantized cache.

    Returns:
        Token ids of each utterance, without the prompt and the end token.
    """
    encoded = speech.encode(features)
    cache = speech.new_cache(kv_layer)
    tell_frames(cache, encoded.mask)
    device = encoded.states.device
    caps = torch.tensor([speech.max_new_tokens(count) for count in samples], device=device)
    longest = int(caps.max())
    emitted = torch.full((len(features), longest), speech.eos, dtype=torch.long, device=device)
    forbidden = [speech.suppressed(first_step=first) for first in (True, False)] if suppress else None
    rows = torch.arange(len(features), device=device)  # the utterance each row of the shrinking batch belongs to
    tokens = torch.tensor(speech.prompt, device=device).expand(len(features), -1)
    for step in range(longest):
        logits = speech.decode_step(tokens, encoded, cache)
        if forbidden is not None:
            logits = logits.index_fill(1, forbidden[min(step, 1)], float("-inf"))
        best = logits.argmax(dim=-1)
        emitted[rows, step] = best
        running = (best != speech.eos) & (caps > step + 1)
        if not running.all():
            keep = running.nonzero().squeeze(1)
            if not len(keep):
                break
            encoded, rows, caps, best = encoded.select(keep), rows[keep], caps[keep], best[keep]
            cache.batch_select_indices(keep)
        tokens = best.unsqueeze(1)
    return [_until(row, speech.eos) for row in emitted.tolist()]


def _until(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos)] if eos in tokens else tokens
