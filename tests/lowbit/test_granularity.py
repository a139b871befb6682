from __future__ import annotations

import pytest
import torch

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.outliers import DenseColumns, SparseOutliers
from src.quant.grid import round_to_nearest


@pytest.mark.parametrize("bits", [1, 9, 16])
def test_codes_wider_than_a_byte_or_narrower_than_two_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2 to 8 bits"):
        WeightSpec(bits, -1, False)


def test_a_group_size_that_does_not_divide_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match="group size 64 does not divide 288"):
        round_to_nearest(torch.ones(2, 288), WeightSpec(4, 64, False))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (WeightSpec(4, -1, True), 4 + 16 / 128),
        (WeightSpec(4, 32, True), 4 + 16 / 32),
        (WeightSpec(4, 32, False), 4 + (16 + 4) / 32),
        (WeightSpec(3, 64, False), 3 + (16 + 3) / 64),
    ],
)
def test_bits_per_weight_counts_codes_scales_and_zero_points(spec: WeightSpec, expected: float) -> None:
    weight = round_to_nearest(torch.randn(16, 128), spec)
    assert weight.bits_per_weight == pytest.approx(expected)


def test_dequantized_columns_come_back_in_the_original_order() -> None:
    spec, perm = WeightSpec(8, 4, False), torch.randperm(16)
    W = torch.randn(3, 16)
    stored = round_to_nearest(W[:, perm], spec)
    in_stored_order = stored.dequantize()
    stored.perm = perm
    assert torch.equal(stored.dequantize()[:, perm], in_stored_order)
    torch.testing.assert_close(stored.dequantize(), W, atol=0.02, rtol=0)


def test_dequantize_leaves_the_codes_as_they_are() -> None:
    weight = round_to_nearest(torch.randn(4, 8), WeightSpec(4, -1, False))
    before = weight.codes.clone()
    assert torch.equal(weight.dequantize(), weight.dequantize())
    assert torch.equal(weight.codes, before)


def test_a_real_zero_point_may_lie_between_two_codes() -> None:
    codes = torch.tensor([[0, 1, 2, 3]], dtype=torch.uint8)
    scale, zero = torch.tensor([[2.0]]).half(), torch.tensor([[1.5]]).half()
    weight = QuantizedWeight(codes, scale, zero, WeightSpec(2, -1, False))
    assert weight.dequantize().tolist() == [[-3.0, -1.0, 1.0, 3.0]]
    assert weight.bits_per_weight == 2 + (16 + 16) / 4


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("group_size", [-1, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_size_of_a_weight_is_known_before_it_is_rounded(bits: int, group_size: int, symmetric: bool) -> None:
    spec = WeightSpec(bits, group_size, symmetric)
    weight = round_to_nearest(torch.randn(7, 24), spec)
    assert spec.stored_bytes(7, 24) == weight.nbytes
    weight.zero = weight.zero.half()
    assert spec.stored_bytes(7, 24, real_zeros=True) == weight.nbytes


def test_sixteen_bit_weights_replace_what_the_grid_says_in_the_original_column_order() -> None:
    W, perm = torch.randn(3, 8), torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])
    weight = round_to_nearest(W[:, perm], WeightSpec(2, -1, False))
    weight.perm = perm
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0, 1] = mask[2, 7] = True
    weight.sparse = SparseOutliers.where(mask, W)
    weight.dense = DenseColumns(W[:, [4]].half(), torch.tensor([4], dtype=torch.int16))
    exact = mask.clone()
    exact[:, 4] = True
    assert torch.equal(weight.dequantize()[exact], W.half().float()[exact])
    weight.sparse = weight.dense = None
    grid = weight.dequantize()
    assert not torch.equal(grid[exact], W.half().float()[exact])


def test_dense_columns_name_the_inputs_that_are_not_quantized() -> None:
    weight = round_to_nearest(torch.randn(3, 8), WeightSpec(4, -1, False))
    assert weight.exact_inputs is None
    weight.dense = DenseColumns(torch.zeros(3, 2).half(), torch.tensor([1, 6], dtype=torch.int16))
    assert weight.exact_inputs is not None
    assert weight.exact_inputs.tolist() == [1, 6]
