from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calibration_rows import correlated
from model_errors import block_errors
from torch import Tensor

from src.errors import UserError
from src.lowbit.double_quantization import StatisticsSpec
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.build import build_method
from src.methods.spqr import spqr
from src.models.speech import SpeechModel
from src.quant.grid import round_to_nearest
from src.quant.loss import output_error
from tests.composed import composed
from tests.methods.whole_models import bench_of
from tests.tiny import tiny_moonshine, tiny_whisper

STATISTICS = StatisticsSpec(bits=3, rows=16)
NO_OUTLIERS = float("inf")
BOOLEANS = [False, True]


def quantized(W: Tensor, H: Tensor, spec: WeightSpec, **options: Any) -> QuantizedWeight:
    return spqr(W, H, spec, statistics=STATISTICS, **options).weight


def problem(rows: int = 32, columns: int = 64) -> tuple[Tensor, Tensor]:
    W, X = correlated(rows, columns, 512, seed=3)
    return W, X.T @ X


def outliers(weight: QuantizedWeight) -> int:
    assert weight.sparse is not None
    return len(weight.sparse.values)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", BOOLEANS)
@pytest.mark.parametrize("act_order", BOOLEANS)
def test_outputs_are_closer_than_with_round_to_nearest(bits: int, symmetric: bool, act_order: bool) -> None:
    spec, ours, nearest = WeightSpec(bits, 16, symmetric), 0.0, 0.0
    for seed in range(4):
        W, X = correlated(32, 64, 512, seed)
        H = X.T @ X
        ours += output_error(W, quantized(W, H, spec, act_order=act_order).dequantize(), H)
        nearest += output_error(W, round_to_nearest(W, spec).dequantize(), H)
    assert ours < nearest


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_every_block_is_closer_to_its_output_than_with_round_to_nearest(
    build: Callable[[], SpeechModel], bits: int
) -> None:
    """With the same groups of 16."""
    ours = block_errors(build, "method=spqr", f"wbits={bits}")
    assert (ours < block_errors(build, "method=rtn", f"wbits={bits}", "group_size=16")).all()


def test_a_weight_that_no_grid_fits_keeps_sixteen_bits() -> None:
    W, H = problem()
    W[5, 11] = 3.0
    weight = quantized(W, H, WeightSpec(3, 16, False), act_order=False)
    assert weight.sparse is not None
    first, last = weight.sparse.rows[5:7].tolist()
    assert 11 in weight.sparse.columns[first:last].tolist()
    assert weight.dequantize()[5, 11] == pytest.approx(3.0, abs=0.1)  # its neighbours' errors move it a little


def test_a_lower_threshold_means_more_outliers_and_a_smaller_error() -> None:
    W, H = problem()
    weights = [
        quantized(W, H, WeightSpec(3, 16, False), outlier_threshold=each) for each in (NO_OUTLIERS, 0.5, 0.2, 0.05)
    ]
    counts = [outliers(weight) for weight in weights]
    assert counts[0] == 0
    assert counts == sorted(set(counts))
    errors = [output_error(W, weight.dequantize(), H) for weight in weights]
    assert errors == sorted(errors, reverse=True)


def test_statistics_take_six_bits_a_group_and_a_quarter_bit_a_weight_at_the_second_level() -> None:
    W, H = problem(64, 64)
    weight = quantized(W, H, WeightSpec(4, 16, False), outlier_threshold=NO_OUTLIERS, act_order=False)
    row_pointers = 8 * 4 * 65 / W.numel()
    assert weight.bits_per_weight - row_pointers == 4 + 6 / 16 + 4 * 16 / (16 * 16)


def test_the_stored_grids_are_those_that_were_used() -> None:
    """Rounding the dequantized weight on the stored grids changes nothing: no scale was rounded afterwards."""
    W, H = problem()
    weight = quantized(W, H, WeightSpec(3, 16, False), outlier_threshold=NO_OUTLIERS, act_order=False)
    assert weight.statistics is not None
    assert weight.statistics.zero is not None
    assert torch.equal(weight.statistics.scale.values(), weight.scale)
    assert torch.equal(weight.statistics.zero.values(), weight.zero)
    groups = weight.dequantize().view(32, 4, 16)
    codes = (groups / weight.scale.float().unsqueeze(2) + weight.zero.float().unsqueeze(2)).round()
    assert torch.equal(codes.view(32, 64).to(torch.uint8), weight.codes)


def test_symmetric_grids_store_no_zero_points() -> None:
    W, H = problem()
    weight = quantized(W, H, WeightSpec(4, 16, True))
    assert weight.statistics is not None
    assert weight.statistics.zero is None
    assert (weight.zero == 8).all()


@pytest.mark.parametrize("symmetric", BOOLEANS)
def test_groups_of_zeros_stay_zero(symmetric: bool) -> None:
    """Over a whole grid of statistics; elsewhere their zero points are rounded with those of their neighbours."""
    W, H = problem()
    W[:16, 16:32] = 0
    weight = quantized(W, torch.eye(64), WeightSpec(3, 16, symmetric), act_order=False)
    assert (weight.dequantize()[:16, 16:32] == 0).all()
    assert output_error(W, weight.dequantize(), H) < 0.1 * output_error(W, torch.zeros_like(W), H)


def test_groups_of_equal_weights_are_as_exact_as_a_scale() -> None:
    W = torch.randn(16, 1).expand(16, 32).contiguous()
    weight = quantized(W, torch.eye(32), WeightSpec(8, 16, False), act_order=False)
    assert (weight.dequantize() - W).abs().max() < 0.1 * W.abs().max()


@pytest.mark.parametrize("rows", [2, 6, 33])
def test_any_number_of_rows_will_do(rows: int) -> None:
    W, X = correlated(rows, 32, 256, seed=0)
    H = X.T @ X
    weight = quantized(W, H, WeightSpec(4, 16, False))
    assert output_error(W, weight.dequantize(), H) < 0.05 * output_error(W, torch.zeros_like(W), H)


def test_only_the_proportions_of_the_gram_matrix_matter() -> None:
    W, H = problem()
    spec = WeightSpec(3, 16, False)
    first, second = quantized(W, H, spec), quantized(W, 1024 * H, spec)
    assert torch.equal(first.dequantize(), second.dequantize())


def test_inputs_that_were_always_zero_are_reported() -> None:
    W, H = problem()
    H[7] = H[:, 7] = 0
    rounded = spqr(W, H, WeightSpec(3, 16, False), statistics=STATISTICS)
    assert rounded.notes == ("1 of 64 input columns were always zero: their weights were set to 0",)


def test_the_method_uses_its_group_size_where_the_bit_config_has_none() -> None:
    method, bench = build_method(composed("method=spqr").method), bench_of(tiny_whisper())
    assert {spec.group_size for spec in method.plan(bench).values() if spec} == {16}
    first, second = list(bench.plan)[:2]
    bench.plan[first], bench.plan[second] = WeightSpec(4, 32, False), None
    plan = method.plan(bench)
    assert plan[first] == WeightSpec(4, 32, False)
    assert plan[second] is None


def test_a_group_size_that_divides_no_layer_is_refused() -> None:
    method = build_method(composed("method=spqr", "method.group_size=48").method)
    with pytest.raises(UserError, match=r"^method\.group_size: 48 does not divide the input width 64"):
        method.plan(bench_of(tiny_whisper()))


def test_groups_of_one_column_are_refused() -> None:
    W, H = problem()
    with pytest.raises(UserError, match="group_size: 1 leaves nothing to compare"):
        quantized(W, H, WeightSpec(3, 1, False))


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_sixteen_bits_cannot_hold_are_refused(value: float) -> None:
    W, H = problem()
    W[0, 0] = value
    with pytest.raises(ValueError, match="NaN or values beyond"):
        quantized(W, H, WeightSpec(3, 16, False))
