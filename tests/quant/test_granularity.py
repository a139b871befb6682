from __future__ import annotations

import pytest
import torch

from src.quant.granularity import WeightSpec
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
