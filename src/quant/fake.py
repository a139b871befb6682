"""Simulated quantization of activations and of the key-value cache: rounded to b-bit grids, kept as floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from src.quant.rotation import Rotation

FULL_PRECISION = 16


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
    max_code = (1 << bits) - 1
    values = x.float()
    # Two reductions: on the CPU, torch.aminmax over one axis takes 20 times as long as both together.
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    else:
        low, high = low.clamp_(max=0), high.clamp_(min=0)
    scale = ((high - low) / max_code).clamp_(min=torch.finfo(torch.float32).tiny)
    zero = torch.full_like(low, 1 << (bits - 1)) if symmetric else (-low / scale).round_()
    rounded = (values / scale).round_()
    return rounded.clamp_(max=max_code - zero).mul_(scale).to(x.dtype)


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


def kv_layer_factory(bits: int, rotation: Rotation | None = None) -> Callable[[], DynamicLayer]:
    """What makes the cache layers of a model: plain ones at 16 bits, :class:`QuantizedKVLayer` below.

    ``rotation`` is the model's :func:`~src.quant.structure.key_rotation`.
    """
    return DynamicLayer if bits == FULL_PRECISION else partial(QuantizedKVLayer, bits, rotation)
