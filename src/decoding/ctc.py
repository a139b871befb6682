"""Greedy decoding of connectionist temporal classification (Graves et al., ICML 2006): best path, sec. 3.2."""

from __future__ import annotations

from itertools import groupby

from torch import Tensor


def best_path(logits: Tensor, mask: Tensor, blank: int) -> list[list[int]]:
    """The most likely token of each frame, repetitions joined and blanks left out.

    Args:
        logits: ``[batch, frames, vocab]``.
        mask: bool ``[batch, frames]``, True where a frame belongs to the utterance.
        blank: the token that stands between two that are alike, and where nothing new is heard.
    """
    frames = [best[valid].tolist() for best, valid in zip(logits.argmax(dim=-1), mask, strict=True)]
    return [[token for token, _ in groupby(each) if token != blank] for each in frames]
