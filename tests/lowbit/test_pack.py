from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.lowbit.double_quantization import QuantizedStatistics, StatisticsSpec, quantize_statistic
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.outliers import DenseColumns, SparseOutliers
from src.lowbit.pack import PARTS, pack, pack_weight, unpack, unpack_weight
from src.quant.grid import round_to_nearest


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


@pytest.mark.parametrize("symmetric", [False, True])
def test_real_zero_points_take_sixteen_bits_each_and_come_back_whole(symmetric: bool) -> None:
    weight = quantized(3, symmetric, True)
    with_codes = weight.nbytes
    weight.zero = (weight.zero + torch.rand(weight.zero.shape)).half()
    tensors = pack_weight(weight)
    assert sum(tensor.nbytes for tensor in tensors.values()) == weight.nbytes
    assert weight.nbytes == with_codes + 2 * 21 - (0 if symmetric else 8)  # 21 codes of 3 bits take 8 bytes
    again = unpack_weight(tensors, weight.spec, weight.shape)
    assert again.zero.dtype == torch.float16
    assert torch.equal(again.zero, weight.zero)
    assert torch.equal(again.dequantize(), weight.dequantize())


def extended(symmetric: bool, ordered: bool, *parts: str) -> QuantizedWeight:
    """A weight [7, 24] with any of sparse outliers, dense columns and quantized statistics."""
    weight = quantized(3, symmetric, ordered)
    if "statistics" in parts:
        spec = StatisticsSpec(3, 4)
        scale = quantize_statistic(weight.scale.float(), spec)
        zero = None if symmetric else quantize_statistic(weight.zero + torch.rand(7, 3), spec)
        weight.statistics = QuantizedStatistics(scale, zero)
        weight.scale, weight.zero = scale.values(), weight.zero if zero is None else zero.values()
    if "sparse" in parts:
        weight.sparse = SparseOutliers.where(torch.rand(7, 24) < 0.1, torch.randn(7, 24))
    if "dense" in parts:
        columns = torch.tensor([0, 5, 23], dtype=torch.int16)
        weight.dense = DenseColumns(torch.randn(7, 3).half(), columns)
        stored = columns.long() if weight.perm is None else torch.argsort(weight.perm)[columns.long()]
        weight.codes[:, stored] = 0  # not stored
    return weight


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("parts", [["sparse"], ["dense"], ["statistics"], ["statistics", "sparse", "dense"]])
def test_sixteen_bit_weights_and_quantized_statistics_come_back_bit_for_bit(
    symmetric: bool, ordered: bool, parts: list[str]
) -> None:
    weight = extended(symmetric, ordered, *parts)
    tensors = pack_weight(weight)
    assert set(tensors) <= set(PARTS)
    assert sum(tensor.nbytes for tensor in tensors.values()) == weight.nbytes
    statistics = None if weight.statistics is None else weight.statistics.spec
    again = unpack_weight(tensors, weight.spec, weight.shape, statistics)
    assert torch.equal(again.codes, weight.codes)
    assert torch.equal(again.scale, weight.scale)
    assert torch.equal(again.zero, weight.zero)
    assert torch.equal(again.dequantize(), weight.dequantize())
    assert again.nbytes == weight.nbytes
    for name, tensor in pack_weight(again).items():
        assert torch.equal(tensor, tensors[name]), name


def test_codes_of_dense_columns_are_not_stored() -> None:
    assert pack_weight(extended(False, True, "dense"))["codes"].shape == (7, -(-21 * 3 // 8))
