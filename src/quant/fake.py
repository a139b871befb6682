"""Simulated quantization of activations and of the key-value cache: rounded to b-bit grids, kept as floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, EncoderDecoderCache

from src.errors import UserError
from src.quant.rotation import Rotation
from src.settings import FULL_PRECISION


def fake_quantize_tokens(x: Tensor, bits: int, symmetric: bool = False) -> Tensor:
    """Rounds every token (vector along the last axis) to its own b-bit min-max grid.

    The grid is that of :mod:`src.quant.grid`, per token and found anew for every input. ``clamp`` below needs one side
    only: rounding is symmetric about 0, hence ``round(low / scale) = -zero`` is never passed, while
    ``round(high / scale)`` may exceed the largest code by one when both ends fall half-way between codes.

    Args:
        x: activations [..., width]; half-precision inputs are rounded in float32.
        bits: width of a code, 2 to 8.
        symmetric: whether the grid covers ``[-max |x|, max |x|]`` instead of ``[min(x, 0), max(x, 0)]``.

    Returns:
        A new tensor of the shape and type of ``x``.
    """
    values = x.float()
    # Two reductions: on the CPU, torch.aminmax over one axis takes 20 times as long as both together.
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    scale, zero = grid_between(low, high, bits, symmetric)
    rounded = (values / scale).round_()
    return rounded.clamp_(max=(1 << bits) - 1 - zero).mul_(scale).to(x.dtype)


def grid_between(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point (a float) of the b-bit grid that covers ``low`` to ``high``, and 0."""
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / ((1 << bits) - 1)).clamp_(min=torch.finfo(torch.float32).tiny)
    zero = torch.full_like(low, 1 << (bits - 1)) if symmetric else (-low / scale).round_()
    return scale, zero


def fake_quantize(x: Tensor, bits: int, scale: Tensor, zero: Tensor) -> Tensor:
    """Rounds ``x`` to given grids that broadcast against it; what lies beyond their ends becomes the end."""
    return clipped((x.float() / scale).round_(), bits, zero).mul_(scale).to(x.dtype)


def clipped(steps: Tensor, bits: int, zero: Tensor) -> Tensor:
    """Whole ``steps`` from 0, those beyond the ends of the b-bit grid with its zero point at ``zero`` at the end."""
    return torch.minimum(torch.maximum(steps, -zero), (1 << bits) - 1 - zero)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """``rounded``, with gradients that pass to ``x`` as if it were that (Bengio et al., arXiv 1308.3432)."""
    return x + (rounded - x).detach() if x.requires_grad else rounded


def fake_quantize_channels(x: Tensor, bits: int, valid: Tensor | None = None) -> Tensor:
    """Rounds every channel (slice along the last but one axis) to its own b-bit min-max grid.

    Unlike a token's, the grid need not contain 0: keys have channels far from 0 on one side, which is what a grid per
    channel is for. Scale and minimum are stored, as in KIVI (arXiv 2402.02750, eq. 1).

    Args:
        x: keys [..., tokens, width]; half-precision inputs are rounded in float32.
        bits: width of a code, 2 to 8.
        valid: bool [..., tokens, 1], False where a token is padding that no grid may depend on; None means all are
            valid.

    Returns:
        A new tensor of the shape and type of ``x``.
    """
    values, max_code = x.float(), (1 << bits) - 1
    low = (values if valid is None else values.masked_fill(~valid, torch.inf)).amin(-2, keepdim=True)
    high = (values if valid is None else values.masked_fill(~valid, -torch.inf)).amax(-2, keepdim=True)
    scale = ((high - low) / max_code).clamp_(min=torch.finfo(torch.float32).tiny)
    codes = ((values - low) / scale).round_().clamp_(0, max_code)
    return codes.mul_(scale).add_(low).to(x.dtype)


class QuantizedKVLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """Cache layer whose keys and values are rounded, per token and head and asymmetrically, as they are written.

    Serves self-attention (one new token at a time) and cross-attention (all encoder frames at once) alike; what is
    already stored is never rounded again. With a ``rotation`` of the head, keys are rounded in the rotated basis and
    rotated back: the scores are those of rotated queries and rotated keys, as in QuaRot (arXiv 2404.00456, stage 2c).
    """

    def __init__(self, bits: int, rotation: Rotation | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits = bits
        self.rotation = rotation

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends rounded states [batch, heads, new, head_dim]; returns all keys and all values so far."""
        keys = self._rounded_keys(key_states)
        values = fake_quantize_tokens(value_states, self.bits)
        stored: tuple[Tensor, Tensor] = super().update(keys, values, *args, **kwargs)
        return stored

    def _rounded_keys(self, keys: Tensor) -> Tensor:
        if self.rotation is None:
            return fake_quantize_tokens(keys, self.bits)
        return self.rotation.undo(fake_quantize_tokens(self.rotation(keys), self.bits))


class ChannelKVLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """Cache layer whose keys are rounded per channel and whose values are rounded per token and head: KIVI's grids.

    Keys of self-attention are rounded ``group`` tokens at a time, as soon as there are so many; those of the last,
    incomplete group stay at 16 bits until then (KIVI, arXiv 2402.02750, algorithm 1). A cross-attention layer, which
    :func:`tell_frames` makes it, gets all keys of an utterance at once: they form one group.

    Two things differ from KIVI. Values are rounded as they are written, where KIVI keeps the latest ones at 16 bits;
    and the step that completes a group already reads it rounded, so that what is read is always what is stored.

    Attributes:
        frames: bool [batch, frames], False where a frame is padding; None in self-attention.
    """

    def __init__(self, bits: int, group: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits, self.group = bits, group
        self.frames: Tensor | None = None
        self.keys: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends states [batch, heads, new, head_dim]; returns all keys and all values as they are stored."""
        before = self.get_seq_length()
        super().update(key_states, fake_quantize_tokens(value_states, self.bits), *args, **kwargs)
        if self.frames is None:
            self._round_groups(before // self.group * self.group)
        elif before == 0:
            self.keys = fake_quantize_channels(self.keys, self.bits, self.frames[:, None, :, None])
        return self.keys, self.values

    def _round_groups(self, start: int) -> None:
        """Rounds the groups from token ``start`` on that are complete."""
        stop = self.keys.shape[-2] // self.group * self.group
        if stop > start:
            batch, heads, _, width = self.keys.shape
            groups = self.keys[..., start:stop, :].reshape(batch, heads, -1, self.group, width)
            rounded = fake_quantize_channels(groups, self.bits).flatten(-3, -2)
            self.keys = torch.cat([self.keys[..., :start, :], rounded, self.keys[..., stop:, :]], dim=-2)


def tell_frames(cache: EncoderDecoderCache, frames: Tensor) -> None:
    """Tells the cross-attention layers of an empty ``cache`` which frames [batch, frames] are real (True)."""
    for layer in cache.cross_attention_cache.layers:
        tell_layer(layer, frames)


def tell_layer(layer: CacheLayerMixin, frames: Tensor) -> None:
    """Makes an empty ``layer`` one of cross-attention, of which ``frames`` [batch, frames] are real (True)."""
    if isinstance(layer, ChannelKVLayer):
        layer.frames = frames


def check_key_rotation(rotation: Rotation | None, key_group: int | None) -> None:
    """Checks that keys are not both rotated and rounded per channel.

    Raises:
        UserError: they are. A rotation spreads what singles channels out over all of them, and leaves nothing to grids
            per channel.
    """
    if rotation is not None and key_group is not None:
        problem = "the method rotates cached keys, after which no channel stands out"
        raise UserError("cache.keys", problem, "Use cache.keys=token, or let the method be without: method.keys=false")


def kv_layer_factory(
    bits: int, rotation: Rotation | None = None, key_group: int | None = None
) -> Callable[[], DynamicLayer]:
    """What makes the cache layers of a model: plain ones at 16 bits, :class:`QuantizedKVLayer` below.

    Args:
        bits: of keys and values.
        rotation: the model's :func:`~src.quant.structure.key_rotation`.
        key_group: tokens that share a grid per channel, with which the layers are :class:`ChannelKVLayer`.

    Raises:
        UserError: keys would be both rotated and rounded per channel.
    """
    if bits == FULL_PRECISION:
        layer: Callable[[], DynamicLayer] = DynamicLayer
        return layer
    check_key_rotation(rotation, key_group)
    if key_group is not None:
        return partial(ChannelKVLayer, bits, key_group)
    return partial(QuantizedKVLayer, bits, rotation)
