"""The key-value cache under teacher forcing: all tokens at once, and nothing is kept from one pass to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from src.quant.fake import straight_through, tell_layer


class ForcedCache(EncoderDecoderCache):  # type: ignore[misc]  # transformers is untyped
    """Gives a decoder block the keys and values that generation would read from its cache, in one pass.

    Every pass through a block starts from an empty cache. With grids per token that is exactly what generation reads;
    with grids per channel and group of tokens, a query also reads groups rounded that were incomplete when generation
    reached it. Gradients pass the rounding unchanged (straight-through estimator, arXiv 1308.3432).
    """

    def __init__(self, layer: Callable[[], DynamicLayer], frames: Tensor) -> None:
        """``layer`` makes a cache layer; ``frames`` [batch, frames] is False where a frame is padding."""
        super().__init__(_PassingCache(layer, None), _PassingCache(layer, frames))
        self.is_updated = _Forgetful()
        self._layer, self._frames = layer, frames

    def clips(self, chosen: slice) -> ForcedCache:
        """The cache for some clips of the batch."""
        return ForcedCache(self._layer, self._frames[chosen])


class _PassingCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped
    """Of one kind of attention, in all blocks."""

    def __init__(self, layer: Callable[[], DynamicLayer], frames: Tensor | None) -> None:
        super().__init__()
        self._layer, self._frames = layer, frames

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The states [batch, heads, tokens, head_dim] as a cache holds them."""
        layer = self._layer()
        if self._frames is not None:
            tell_layer(layer, self._frames)
        with torch.no_grad():
            keys, values = layer.update(key_states, value_states)
        return straight_through(key_states, keys), straight_through(value_states, values)


class _Forgetful(dict[int, bool]):
    """Which cross-attentions have stored their frames: none, ever."""

    def __setitem__(self, layer: int, stored: bool) -> None:
        pass
