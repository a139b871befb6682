from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from src.lowbit.granularity import WeightSpec
from src.quant.fake import QuantizedKVLayer, fake_quantize_tokens, kv_layer_factory
from src.quant.grid import round_to_nearest


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    magnitude=st.sampled_from([1e-30, 1e-3, 1.0, 1e4]),
)
def test_tokens_use_the_grid_of_weights_with_unrounded_scales(
    seed: int, bits: int, symmetric: bool, magnitude: float
) -> None:
    x = torch.randn(6, 24, generator=torch.Generator().manual_seed(seed)) * magnitude
    as_weight = round_to_nearest(x, WeightSpec(bits, -1, symmetric), scale_dtype=torch.float32)
    torch.testing.assert_close(fake_quantize_tokens(x, bits, symmetric), as_weight.dequantize(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_ends_that_fall_half_way_between_codes_stay_on_the_grid(symmetric: bool) -> None:
    rounded = fake_quantize_tokens(torch.tensor([[-7.5, -1.0, 0.0, 7.5]]), 4, symmetric)
    assert rounded.tolist() == [[-8.0, -1.0, 0.0, 7.0]]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_token_has_at_most_two_to_the_bits_values(bits: int, symmetric: bool) -> None:
    rounded = fake_quantize_tokens(torch.randn(3, 4096), bits, symmetric)
    assert all(len(row.unique()) <= 2**bits for row in rounded)


def test_tokens_of_zeros_stay_zero_and_constant_tokens_keep_their_value() -> None:
    x = torch.tensor([0.0, 0.3, -0.3, 1e-38])[:, None].expand(4, 16)
    torch.testing.assert_close(fake_quantize_tokens(x, 4), x, rtol=1e-6, atol=1e-37)


def test_every_token_has_its_own_grid_wherever_it_stands() -> None:
    x = torch.randn(2, 5, 32) * torch.logspace(-3, 3, 5)[:, None]
    alone = torch.stack([torch.stack([fake_quantize_tokens(token, 4) for token in clip]) for clip in x])
    assert torch.equal(fake_quantize_tokens(x, 4), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_input_is_left_alone_and_its_type_is_kept(dtype: torch.dtype) -> None:
    x = torch.randn(3, 16).to(dtype)
    before = x.clone()
    assert fake_quantize_tokens(x, 8).dtype == dtype
    assert torch.equal(x, before)


def test_the_cache_rounds_what_is_written_once_and_per_token_and_head() -> None:
    layer = QuantizedKVLayer(4)
    steps = [(torch.randn(2, 3, new, 8), torch.randn(2, 3, new, 8)) for new in (5, 1, 1)]
    for keys, values in steps:
        all_keys, all_values = layer.update(keys, values)
    assert torch.equal(all_keys, torch.cat([fake_quantize_tokens(keys, 4) for keys, _ in steps], dim=2))
    assert torch.equal(all_values, torch.cat([fake_quantize_tokens(values, 4) for _, values in steps], dim=2))
    assert layer.get_seq_length() == 7


def test_sixteen_bits_need_no_quantized_cache() -> None:
    assert type(kv_layer_factory(16)()) is DynamicLayer
    first, second = kv_layer_factory(4)(), kv_layer_factory(4)()
    assert isinstance(first, QuantizedKVLayer)
    assert first is not second
