"""Whisper's time tokens: what may follow what while they are written, and where the window goes on after them.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356), sections 3.8 and 4.5,
as in the authors' decoder. A transcript with times reads ``<0.00> text <2.40><2.40> text <5.00>``: a time opens a
segment, another closes it, and two in a row close one and open the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from src.models.speech import TimeTokens


def time_rules(times: TimeTokens, eos: int, logits: Tensor, emitted: Tensor) -> Tensor:
    """Logits with everything forbidden at minus infinity.

    A transcript begins with a time, at most ``latest_start``; times never decrease, and come in pairs but for the last
    one; and where all times together are likelier than any other token, a time it is.

    Args:
        times: the checkpoint's time tokens.
        eos: the end token; ids below it are text, and so are ids above the last time.
        logits: ``[batch, vocab]``.
        emitted: what each row has written so far, LongTensor ``[batch, steps]``.
    """
    ids = torch.arange(logits.shape[1], device=logits.device)
    is_time = (ids >= times.first) & (ids <= times.last)
    is_text = (ids < eos) | (ids > times.last)
    if emitted.shape[1] == 0:
        logits = logits.masked_fill(~is_time | (ids > times.first + times.latest_start), float("-inf"))
    else:
        written = (emitted >= times.first) & (emitted <= times.last)
        last = written[:, -1:]
        opened = written[:, -2:-1] if emitted.shape[1] > 1 else torch.ones_like(last)
        closing = last & ~opened  # a time after text: another time or the end has to follow
        latest = emitted.where(written, times.first - 1).amax(dim=1, keepdim=True)
        early = is_time & (ids < torch.where(closing, latest, latest + 1))
        forbidden = early | (last & opened & is_time) | (closing & is_text) | (ids == times.first - 1)
        logits = logits.masked_fill(forbidden, float("-inf"))
    logprobs = logits.float().log_softmax(dim=-1)
    total = logprobs[:, times.first : times.last + 1].logsumexp(dim=-1)
    likelier = total > logprobs.masked_fill(is_time, float("-inf")).amax(dim=-1)
    return logits.masked_fill(likelier.unsqueeze(1) & ~is_time, float("-inf"))


def complete(tokens: Sequence[int], times: TimeTokens, frames: int) -> tuple[list[int], int]:
    """The part of a window's transcript that stands, and the mel frames after which the next window begins.

    After two times in a row, an unfinished segment may follow; it is dropped, and the next window begins where the last
    complete segment ended. Without such a pair, or where the transcript ends in a single time (no speech after it), all
    tokens stand and the next window begins where this one ends.

    Args:
        tokens: of the window, without prompt and end token.
        times: the checkpoint's time tokens.
        frames: mel frames of audio in the window.
    """
    is_time = [times.holds(token) for token in tokens]
    pairs = [second for second in range(1, len(tokens)) if is_time[second - 1] and is_time[second]]
    if not pairs or is_time[-2:] == [False, True]:
        return list(tokens), frames
    end = tokens[pairs[-1] - 1] - times.first
    return list(tokens[: pairs[-1] + 1]), end * times.frames
