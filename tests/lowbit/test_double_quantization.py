from __future__ import annotations

import pytest
import torch

from src.lowbit.double_quantization import StatisticsSpec, quantize_statistic

SPEC = StatisticsSpec(bits=3, rows=16)


@pytest.mark.parametrize("rows", [1, 16, 40])
def test_statistics_are_off_by_half_a_step_at_most(rows: int) -> None:
    x = torch.rand(rows, 3) + 0.5
    quantized = quantize_statistic(x, SPEC, torch.float32)
    step = quantized.step[torch.arange(rows) // 16]
    assert ((quantized.values() - x).abs() <= 0.5001 * step).all()
    assert quantized.codes.max() <= 7


def test_each_grid_serves_sixteen_rows_of_one_column_group() -> None:
    x = torch.rand(32, 2)
    alone = quantize_statistic(x[16:, 1:], SPEC)
    assert torch.equal(quantize_statistic(x, SPEC).values()[16:, 1:], alone.values())


@pytest.mark.parametrize("value", [0.0, 1e-7, 0.03, -900.0])
def test_equal_statistics_come_back_as_sixteen_bits_hold_them(value: float) -> None:
    x = torch.full((16, 1), value)
    assert torch.equal(quantize_statistic(x, SPEC).values(), x.half())


def test_statistics_that_hardly_differ_stay_finite() -> None:
    x = 100 + 1e-4 * torch.rand(16, 1)
    assert torch.allclose(quantize_statistic(x, SPEC).values().float(), x, rtol=1e-3)


def test_positive_scales_stay_positive() -> None:
    x = torch.exp(4 * torch.randn(64, 8)).clamp(min=6e-8, max=6e4)
    assert (quantize_statistic(x, SPEC).values() > 0).all()


def test_three_bits_and_two_sixteen_bit_numbers_per_sixteen_statistics_are_counted() -> None:
    assert quantize_statistic(torch.rand(32, 4), SPEC).nbytes == 32 * 4 * 3 // 8 + 2 * 2 * (2 * 4)


def test_statistics_beyond_sixteen_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="largest that can be stored"):
        quantize_statistic(torch.tensor([[1e6]]), SPEC)
