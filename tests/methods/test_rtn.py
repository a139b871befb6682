from __future__ import annotations

import torch

from src.lowbit.granularity import WeightSpec
from src.methods.rtn import RTN
from src.quant.grid import quantize, weight_range_mse


def test_round_to_nearest_needs_no_statistics_and_takes_no_fallback() -> None:
    method = RTN("rtn", "minmax")
    assert not method.needs.statistics
    assert not method.needs.calibration
    assert method.round(torch.randn(4, 16), WeightSpec(3, 8, False), None).notes == ()


def test_the_range_decides_the_grid() -> None:
    W = torch.cat([torch.linspace(-1, 1, 63), torch.tensor([4.0])])[None]  # one outlier
    spec = WeightSpec(3, -1, False)
    searched, spanned = (RTN("rtn", search).round(W, spec, None).weight for search in ("mse", "minmax"))
    scale, zero = weight_range_mse(W, spec)
    assert torch.equal(searched.codes, quantize(W, scale, zero, spec.bits))
    assert searched.scale < spanned.scale
