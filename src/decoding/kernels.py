"""Faster products and attention for inference on a CPU; the same numbers up to floating-point rounding.

Torch multiplies float32 matrices with MKL, which leaves half of the vector unit idle on processors of other makers;
oneDNN, which torch brings along for its compiler, uses all of it everywhere. Torch's fused attention is built on the
same products and has no fast path for a single query of half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from src.models.attention import attention_replaced
from src.models.products import HAS_ONEDNN, product
from src.quant.linear import QuantLinear

_NAME = "cpu_inference"
_TILE = 500  # queries whose scores against one window of keys (3 MB) stay near the core
_LONG = 256  # queries from which tiles are faster than torch's kernel


@contextmanager
def inference_kernels(module: PreTrainedModel) -> Iterator[None]:
    """Within it, linears and attention of ``module`` run on the kernels below, where its device is a CPU.

    Attention has to be transformers' ``sdpa``; the module is as before afterwards. Nothing can be trained in between.
    """
    if module.device.type != "cpu" or not HAS_ONEDNN:
        yield
        return
    linears = [child for child in module.modules() if type(child) in (nn.Linear, QuantLinear)]
    for linear in linears:
        linear.__dict__["forward"] = partial(_linear, linear)
    try:
        with attention_replaced(module, _NAME, only="sdpa"), _heads_unpadded(module):
            yield
    finally:
        for linear in linears:
            del linear.__dict__["forward"]


@contextmanager
def _heads_unpadded(module: PreTrainedModel) -> Iterator[None]:
    """Without the zeros that transformers' Moonshine appends to heads for a GPU's sake.

    They change no score, but all keys and values of a cache are copied for them at each step: half of its time.
    """
    padded = [child for child in module.modules() if getattr(child, "head_dim_padding", 0)]
    before = [child.head_dim_padding for child in padded]
    for child in padded:
        child.head_dim_padding = 0
    try:
        yield
    finally:
        for child, padding in zip(padded, before, strict=True):
            child.head_dim_padding = padding


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """What ``linear(x)`` is, for ``x`` [..., in]."""
    return product(linear.prepared(x) if isinstance(linear, QuantLinear) else x, linear.weight, linear.bias)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: states [batch, heads, length, width] to [batch, length, heads, width]."""
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.shape[1] == key.shape[1]:  # no grouped queries
        if query.shape[2] == 1:
            return _single(query, key, value, attention_mask, scale), None
        if query.shape[2] >= _LONG and attention_mask is None and not causal:
            return _tiled(query, key, value, scale), None
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )
    return output, None


def _single(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one query; ``mask`` is bool, True where a key counts, or added to the scores."""
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    elif mask is not None:
        scores += mask
    return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(value.dtype), value).transpose(1, 2)


def _tiled(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention without a mask, head by head and some queries at a time; scores and softmax in float32."""
    batch, heads, length, width = query.shape
    output = torch.empty(batch, length, heads, width, dtype=query.dtype)
    queries, keys = query.float() * scale, key.float()
    for row in range(batch):
        for head in range(heads):
            values = value[row, head].T.contiguous()
            for start in range(0, length, _TILE):
                tile = slice(start, start + _TILE)
                weights = product(queries[row, head, tile], keys[row, head]).softmax(-1).to(value.dtype)
                output[row, tile, head] = product(weights, values)
    return output


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
