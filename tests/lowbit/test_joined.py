"""Weights whose output channels were rounded apart are one weight again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.lowbit.double_quantization import StatisticsSpec
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.quik import quik
from src.methods.spqr import spqr
from src.quant.grid import round_to_nearest


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    """A weight and inputs."""
    torch.manual_seed(0)
    return torch.randn(48, 32), torch.randn(200, 32)


def check(parts: list[QuantizedWeight]) -> QuantizedWeight:
    joined = QuantizedWeight.joined(parts)
    assert torch.equal(joined.dequantize(), torch.cat([each.dequantize() for each in parts]))
    assert joined.shape == (sum(each.shape[0] for each in parts), parts[0].shape[1])
    return joined


def test_codes_and_grids(rows: tuple[Tensor, Tensor]) -> None:
    W, _ = rows
    spec = WeightSpec(3, 8, symmetric=False)
    joined = check([round_to_nearest(each, spec) for each in W.split([5, 16, 27])])
    whole = round_to_nearest(W, spec)
    assert torch.equal(joined.codes, whole.codes)
    assert joined.nbytes == whole.nbytes


def test_outliers_and_quantized_statistics(rows: tuple[Tensor, Tensor]) -> None:
    """As in a weight rounded at once: without an order of columns, rows depend on each other by grids alone."""
    W, X = rows
    options = {"statistics": StatisticsSpec(3, 16), "outlier_threshold": 0.2, "act_order": False}
    spec = WeightSpec(3, 16, symmetric=False)
    parts = [spqr(each, X.T @ X, spec, **options).weight for each in W.split(16)]  # type: ignore[arg-type]
    joined = check(parts)
    assert joined.sparse is not None
    assert len(joined.sparse.rows) == len(W) + 1
    assert joined.nbytes == sum(each.nbytes for each in parts) - 4 * (len(parts) - 1)  # one first row instead of three
    with pytest.raises(ValueError, match="a grid of scales serves 16 consecutive rows"):
        QuantizedWeight.joined([spqr(each, X.T @ X, spec, **options).weight for each in W.split(12)])  # type: ignore[arg-type]


def test_columns_at_16_bits(rows: tuple[Tensor, Tensor]) -> None:
    W, X = rows
    spec, largest = WeightSpec(4, -1, symmetric=False), X.abs().amax(0)
    parts = [quik(each, X.T @ X, largest, spec, outliers=3).weight for each in W.split(12)]
    assert check(parts).dense is not None
    other = quik(W[:12], X.T @ X, largest.flip(0), spec, outliers=3).weight
    with pytest.raises(ValueError, match="the columns at 16 bits are whole ones"):
        QuantizedWeight.joined([parts[0], other])


def test_different_orders_are_refused(rows: tuple[Tensor, Tensor]) -> None:
    W, _ = rows
    spec = WeightSpec(4, 8, symmetric=False)
    one, other = (round_to_nearest(each, spec) for each in W.split(24))
    other.perm = torch.arange(32).flip(0)
    with pytest.raises(ValueError, match="one order"):
        QuantizedWeight.joined([one, other])
    one.perm = other.perm.clone()
    assert torch.equal(check([one, other]).perm, other.perm)
