from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.methods.hqq import hqq
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.grid import round_to_nearest
from src.quant.restore import restore
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper


def solve(W: torch.Tensor, spec: WeightSpec, iterations: int = 20) -> QuantizedWeight:
    return hqq(W, spec, lp_norm=0.7, beta=10.0, kappa=1.01, iterations=iterations)


def lp(W: torch.Tensor, weight: QuantizedWeight) -> float:
    return float((weight.dequantize() - W).abs().pow(0.7).mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [-1, 16, 64])
@pytest.mark.parametrize("size", [1.0, 0.05])
def test_its_own_objective_is_lower_than_with_round_to_nearest(bits: int, group_size: int, size: float) -> None:
    W, spec = size * torch.randn(32, 128), WeightSpec(bits, group_size, False)
    assert lp(W, solve(W, spec)) < lp(W, round_to_nearest(W, spec))


def test_more_iterations_never_raise_the_mean_error() -> None:
    W, spec = torch.randn(32, 128) * torch.randn(32, 128).exp(), WeightSpec(3, 64, False)
    errors = [float((solve(W, spec, n).dequantize() - W).abs().mean()) for n in (1, 2, 5, 20)]
    assert all(later <= earlier * 1.001 for earlier, later in pairwise(errors))
    assert errors[-1] < errors[0]


def test_zero_points_are_real_numbers_and_counted_at_16_bits() -> None:
    W = torch.randn(8, 64)
    found, nearest = (make(W, WeightSpec(4, 16, False)) for make in (solve, round_to_nearest))
    assert found.zero.dtype == found.scale.dtype == torch.float16
    assert (found.zero != found.zero.round()).any()
    assert found.bits_per_weight == nearest.bits_per_weight + 12 / 16


@pytest.mark.parametrize("value", [0.0, 0.03, -2.0])
def test_a_group_of_equal_weights_is_exact(value: float) -> None:
    W = torch.full((2, 32), value)
    torch.testing.assert_close(solve(W, WeightSpec(3, 16, False)).dequantize(), W, rtol=1e-3, atol=0)


def test_symmetric_grids_are_refused() -> None:
    with pytest.raises(UserError, match="symmetric: hqq fits zero points"):
        solve(torch.randn(2, 8), WeightSpec(4, -1, True))


def test_no_calibration_data_is_used() -> None:
    assert not build_method(composed("method=hqq").method).needs.calibration


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
@pytest.mark.parametrize("bits", ["w2a16", "w4a8"])
def test_a_whole_model_reloads_as_it_was(build: type, bits: str, tmp_path: Path) -> None:
    settings, speech = composed("method=hqq", f"bits={bits}", "group_size=16"), build()
    quantizer = Quantizer(speech, build_method(settings.method), settings)
    quantizer.run()
    path = tmp_path / "model.safetensors"
    save_weights(path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights))
    reloaded = build(seed=1)
    restore(reloaded, path, input_bits(reloaded.graph, settings))
    for linear in speech.graph.linears:
        name = f"{linear.path}.weight"
        assert torch.equal(reloaded.module.get_parameter(name), speech.module.get_parameter(name))
