from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from calibration_rows import correlated
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.gptq import gptq
from src.methods.parts.refinement import refine
from src.quant.grid import round_to_nearest


def objective(W: Tensor, H: Tensor, weight: QuantizedWeight, C: Tensor | None = None) -> Tensor:
    """Of every row; float64."""
    Q, W, H = weight.dequantize().double(), W.double(), H.double()
    shift = torch.zeros(()) if C is None else 2 * (Q * (W @ C.double())).sum(1)
    return ((Q - W) @ H * (Q - W)).sum(1) - shift


@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("crossed", [False, True])
def test_no_pass_raises_the_error_of_any_row(group_size: int, symmetric: bool, crossed: bool) -> None:
    W, X = correlated(24, 64, 512, 0)
    H, spec = X.T @ X, WeightSpec(3, group_size, symmetric)
    C = 0.1 * torch.randn(512, 64, generator=torch.Generator().manual_seed(1)).T @ X if crossed else None
    weight = gptq(W, H, spec, act_order=True, static_groups=True, C=C).weight
    errors = [objective(W, H, refine(W, H, weight, passes, C=C), C) for passes in range(5)]
    for before, after in pairwise(errors):
        assert (after <= before + 1e-5 * before.abs()).all()
    assert errors[-1].sum() < errors[0].sum()


def test_at_the_end_no_single_code_could_be_better() -> None:
    W, X = correlated(4, 24, 256, 2)
    H, spec = X.T @ X, WeightSpec(2, -1, False)
    weight = refine(W, H, round_to_nearest(W, spec), 50)
    least = objective(W, H, weight)
    for column, code in product(range(24), range(4)):
        codes = weight.codes.clone()
        codes[:, column] = code
        other = QuantizedWeight(codes, weight.scale, weight.zero, spec)
        assert (objective(W, H, other) >= least * (1 - 1e-6)).all()


def test_the_step_is_that_of_a_least_squares_fit() -> None:
    """With these codes, no other multiple of them is closer to the output."""
    W, X = correlated(1, 32, 256, 3)
    X = X.double()
    spec = WeightSpec(3, -1, True)
    weight = refine(W, (X.T @ X).float(), round_to_nearest(W, spec), 30)
    c = (weight.codes.double() - weight.zero.double()).squeeze(0)
    fitted = torch.linalg.lstsq((X @ c)[:, None], (X @ W[0].double())[:, None]).solution.item()
    assert weight.scale.item() == pytest.approx(fitted, rel=1e-3)  # float16


@pytest.mark.parametrize("group_size", [-1, 16])
def test_the_block_size_does_not_change_the_codes(group_size: int) -> None:
    W, X = correlated(16, 96, 512, seed=1)
    H, spec = X.T @ X, WeightSpec(3, group_size, False)
    weight = gptq(W, H, spec).weight
    results = [refine(W, H, weight, 2, block_size=size).codes for size in (1, 7, 96, 128)]
    assert all(torch.equal(codes, results[0]) for codes in results)


def test_a_stored_order_of_columns_is_kept() -> None:
    W, X = correlated(16, 64, 512, seed=4)
    H, spec = X.T @ X, WeightSpec(3, 16, False)
    weight = gptq(W, H, spec, act_order=True).weight
    assert weight.perm is not None
    refined = gptq(W, H, spec, act_order=True, passes=3).weight
    assert refined.perm is not None
    assert torch.equal(refined.perm, weight.perm)
    assert objective(W, H, refined).sum() < 0.99 * objective(W, H, weight).sum()
