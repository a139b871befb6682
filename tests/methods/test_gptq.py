from __future__ import annotations

import pytest
import torch
from calibration_rows import correlated
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.gptq import GPTQ, gptq
from src.quant.grid import round_to_nearest
from src.quant.link_statistics import LinkStatistics
from src.quant.loss import output_error

BOOLEANS = [False, True]


def method(**changed: object) -> GPTQ:
    values = {"damp": 0.01, "block_size": 128, "act_order": True, "static_groups": True, "range": "minmax", "passes": 0}
    return GPTQ(name="gptq", **{**values, **changed})  # type: ignore[arg-type]


def codes_in_original_order(weight: QuantizedWeight) -> Tensor:
    return weight.codes if weight.perm is None else weight.codes[:, torch.argsort(weight.perm)]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", BOOLEANS)
@pytest.mark.parametrize("act_order", BOOLEANS)
@pytest.mark.parametrize("static_groups", BOOLEANS)
def test_outputs_are_closer_than_with_round_to_nearest(
    bits: int, group_size: int, symmetric: bool, act_order: bool, static_groups: bool
) -> None:
    """Summed over layers: a greedy method may lose a single one (2-bit symmetric groups, left to right)."""
    spec = WeightSpec(bits, group_size, symmetric)
    ours = nearest = 0.0
    for seed in range(6):
        W, X = correlated(16, 64, 512, seed)
        H = X.T @ X
        weight = gptq(W, H, spec, act_order=act_order, static_groups=static_groups).weight
        ours += output_error(W, weight.dequantize(), H)
        nearest += output_error(W, round_to_nearest(W, spec).dequantize(), H)
    assert ours < 0.9 * nearest


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("act_order", BOOLEANS)
@pytest.mark.parametrize("static_groups", BOOLEANS)
def test_with_uncorrelated_inputs_it_is_round_to_nearest(
    bits: int, group_size: int, act_order: bool, static_groups: bool
) -> None:
    W, spec = torch.randn(8, 64), WeightSpec(bits, group_size, False)
    ours = gptq(W, torch.eye(64), spec, act_order=act_order, static_groups=static_groups).weight
    assert torch.equal(codes_in_original_order(ours), round_to_nearest(W, spec).codes)


@pytest.mark.parametrize("act_order", BOOLEANS)
@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("static_groups", BOOLEANS)
def test_the_block_size_does_not_change_the_codes(act_order: bool, group_size: int, static_groups: bool) -> None:
    W, X = correlated(16, 96, 512, seed=1)
    H, spec = X.T @ X, WeightSpec(4, group_size, False)
    results = [
        gptq(W, H, spec, block_size=size, act_order=act_order, static_groups=static_groups).weight.codes
        for size in (1, 7, 24, 96, 128)
    ]
    assert all(torch.equal(codes, results[0]) for codes in results)


@pytest.mark.parametrize("act_order", BOOLEANS)
@pytest.mark.parametrize("static_groups", BOOLEANS)
@pytest.mark.parametrize("group_size", [-1, 16])
def test_an_order_is_stored_only_where_groups_follow_it(act_order: bool, static_groups: bool, group_size: int) -> None:
    W, X = correlated(4, 64, 256, seed=2)
    H = X.T @ X
    weight = gptq(W, H, WeightSpec(4, group_size, False), act_order=act_order, static_groups=static_groups).weight
    if act_order and not static_groups and group_size > 0:
        assert weight.perm is not None
        assert torch.equal(weight.perm, torch.argsort(H.diagonal(), descending=True))
    else:
        assert weight.perm is None
    assert (weight.dequantize() - W).abs().max() < 0.1


def test_only_the_proportions_of_the_gram_matrix_matter() -> None:
    W, X = correlated(8, 48, 256, seed=3)
    X[:, 5] = 0
    H, spec = X.T @ X, WeightSpec(3, -1, False)
    assert torch.equal(gptq(W, H, spec).weight.codes, gptq(W, H / 1024, spec).weight.codes)


def test_two_runs_give_the_same_codes_and_leave_their_inputs_alone() -> None:
    W, X = correlated(8, 48, 256, seed=4)
    H = X.T @ X
    W_before, H_before = W.clone(), H.clone()
    first, second = (gptq(W, H, WeightSpec(3, 16, False), act_order=True).weight for _ in range(2))
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.scale, second.scale)
    assert torch.equal(W, W_before)
    assert torch.equal(H, H_before)


def test_inputs_that_were_always_zero_are_noted_and_their_weights_dropped() -> None:
    W, X = correlated(8, 48, 256, seed=5)
    X[:, [3, 40]] = 0
    rounded = gptq(W, X.T @ X, WeightSpec(4, -1, False))
    assert rounded.notes == ("2 of 48 input columns were always zero: their weights were set to 0",)
    assert not rounded.weight.dequantize()[:, [3, 40]].any()


def test_fewer_rows_than_columns_are_enough() -> None:
    W, X = correlated(8, 48, 12, seed=6)
    H, spec = X.T @ X, WeightSpec(3, -1, False)
    rounded = gptq(W, H, spec)
    assert rounded.notes == ()
    assert output_error(W, rounded.weight.dequantize(), H) < output_error(W, round_to_nearest(W, spec).dequantize(), H)


def test_a_singular_matrix_raises_the_damping_and_every_step_is_noted() -> None:
    H = torch.eye(8)
    H[0, 0] = -0.05  # no Gram matrix: rounding errors of a long sum, exaggerated
    notes = gptq(torch.randn(4, 8), H, WeightSpec(4, -1, False), damp=0.001).notes
    assert notes == (
        "damping raised to 0.01 after a failed Cholesky factorisation",
        "damping raised to 0.1 after a failed Cholesky factorisation",
    )


def test_a_matrix_that_no_damping_repairs_is_an_error_and_never_round_to_nearest() -> None:
    H = torch.eye(8)
    H[0, 0] = -5
    with pytest.raises(UserError, match=r"method\.damp: .*not positive definite even with damping 1\."):
        gptq(torch.randn(4, 8), H, WeightSpec(4, -1, False), damp=0.03)


def test_statistics_without_content_are_errors() -> None:
    W, spec = torch.randn(4, 8), WeightSpec(4, -1, False)
    with pytest.raises(UserError, match=r"calib\.n: every input of the layer was zero"):
        gptq(W, torch.zeros(8, 8), spec)
    with pytest.raises(UserError, match="NaN or infinity"):
        gptq(W, torch.full((8, 8), float("nan")), spec)
    with pytest.raises(ValueError, match="needs the Gram matrix"):
        method().round(W, spec, LinkStatistics(count=0))


def test_the_method_passes_its_parameters_on() -> None:
    W, X = correlated(8, 48, 256, seed=7)
    H, spec = X.T @ X, WeightSpec(3, 16, False)
    ours = method(damp=0.1, static_groups=False, range="mse").round(W, spec, LinkStatistics(256, gram=H)).weight
    expected = gptq(W, H, spec, damp=0.1, act_order=True, static_groups=False, search="mse").weight
    assert torch.equal(ours.dequantize(), expected.dequantize())
