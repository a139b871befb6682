"""How much attention every position of a sequence receives in a block's self-attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from src.calib.task import BlockInput
from src.models.attention import attention_replaced

_NAME = "attention_received"


class _Seen(Exception):  # noqa: N818 - not an error: the rest of the block need not run
    """Carries queries and keys of a block's first attention, which is its self-attention, out of the block."""

    def __init__(self, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
        super().__init__()
        self.query, self.key, self.mask, self.scaling = query, key, mask, scaling
        self.causal = mask is None and query.shape[2] > 1 and bool(getattr(module, "is_causal", False))


def attention_received(model: Any, block: nn.Module, batch: BlockInput) -> Tensor:
    """Attention probability that each position receives, summed over heads and over queries that are no padding.

    Args:
        model: the transformers model that ``block`` belongs to.
        block: one of its blocks; runs up to its self-attention.
        batch: what it is fed.

    Returns:
        [batch, rows], 0 on padding that is masked.
    """
    with _intercepted(model):
        try:
            block(batch.hidden, **batch.kwargs)
        except _Seen as seen:
            return torch.stack([_received(seen, clip, valid) for clip, valid in enumerate(batch.valid)])
    raise ValueError(f"{type(block).__name__} has no self-attention that transformers dispatches")


def _received(seen: _Seen, clip: int, valid: Tensor) -> Tensor:
    """One clip at a time, so that the scores of long clips need not fit memory together."""
    query, key = seen.query[clip], seen.key[clip]
    key = key.repeat_interleave(query.shape[0] // key.shape[0], dim=0)
    scores = query @ key.transpose(1, 2) * seen.scaling
    if seen.mask is not None:
        mask = seen.mask[min(clip, len(seen.mask) - 1)]
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    elif seen.causal:
        rows = torch.arange(scores.shape[-1], device=scores.device)
        scores = scores.masked_fill(rows > rows[:, None], -torch.inf)
    return scores.softmax(dim=-1)[:, valid].sum(dim=(0, 1))


@contextmanager
def _intercepted(model: Any) -> Iterator[None]:
    """Inside, the first attention of ``model`` that runs raises :class:`_Seen`."""

    def intercept(
        module: nn.Module, query: Tensor, key: Tensor, _value: Tensor, mask: Tensor | None, **options: Any
    ) -> None:
        scaling = options.get("scaling")
        raise _Seen(module, query, key, mask, query.shape[-1] ** -0.5 if scaling is None else scaling)

    ALL_ATTENTION_FUNCTIONS[_NAME] = intercept
    try:
        with attention_replaced(model, _NAME):
            yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[_NAME]
