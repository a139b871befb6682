from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.quant.granularity import QuantizedWeight, WeightSpec
from src.quant.grid import round_to_nearest
from src.quant.pack import pack, pack_weight, unpack, unpack_weight


def random_codes(bits: int, rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**bits, (rows, columns), dtype=torch.uint8, generator=generator)


@settings(deadline=None)
@given(bits=st.integers(2, 8), rows=st.integers(1, 5), columns=st.integers(1, 41), seed=st.integers(0, 10**6))
def test_unpacking_gives_the_codes_back_at_any_width(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = random_codes(bits, rows, columns, seed)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, -(-columns * bits // 8))
    assert torch.equal(unpack(packed, bits, columns), codes)


def test_the_first_code_takes_the_lowest_bits() -> None:
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0, 1]], dtype=torch.uint8)
    stream = sum(code << (3 * j) for j, code in enumerate(codes[0].tolist()))
    assert bytes(pack(codes, 3)[0].tolist()) == stream.to_bytes(4, "little")


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_largest_code_fills_every_bit(bits: int) -> None:
    codes = torch.full((2, 8), 2**bits - 1, dtype=torch.uint8)
    assert torch.equal(pack(codes, bits), torch.full((2, bits), 255, dtype=torch.uint8))


def quantized(bits: int, symmetric: bool, ordered: bool) -> QuantizedWeight:
    weight = round_to_nearest(torch.randn(7, 24), WeightSpec(bits, 8, symmetric))
    weight.perm = torch.randperm(24) if ordered else None
    return weight


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_packed_weight_is_as_large_as_it_says_and_comes_back_whole(bits: int, symmetric: bool, ordered: bool) -> None:
    weight = quantized(bits, symmetric, ordered)
    tensors = pack_weight(weight)
    assert sum(tensor.nbytes for tensor in tensors.values()) == weight.nbytes
    assert ("zero" in tensors) is not symmetric
    again = unpack_weight(tensors, weight.spec, weight.shape)
    assert torch.equal(again.codes, weight.codes)
    assert torch.equal(again.zero, weight.zero)
    assert torch.equal(again.dequantize(), weight.dequantize())


def test_codes_of_another_size_are_refused() -> None:
    weight = quantized(4, True, False)
    with pytest.raises(ValueError, match=r"3 bits of \(7, 24\)"):
        unpack_weight(pack_weight(weight), WeightSpec(3, 8, True), weight.shape)
