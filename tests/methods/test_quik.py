from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_rows import correlated
from model_errors import block_errors
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.methods.quik import quik
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.grid import round_to_nearest
from src.quant.linear import QuantLinear
from src.quant.loss import output_error
from src.quant.restore import restore
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BOOLEANS = [False, True]


def problem(seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A weight [16, 64], the Gram matrix of its inputs and their largest magnitudes."""
    W, X = correlated(16, 64, 512, seed)
    return W, X.T @ X, X.abs().amax(0)


def quantized(W: Tensor, H: Tensor, abs_max: Tensor, spec: WeightSpec, **options: Any) -> QuantizedWeight:
    return quik(W, H, abs_max, spec, **{"outliers": 4, **options}).weight


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", BOOLEANS)
@pytest.mark.parametrize("act_order", BOOLEANS)
def test_outputs_are_closer_than_with_round_to_nearest(
    bits: int, group_size: int, symmetric: bool, act_order: bool
) -> None:
    spec, ours, nearest = WeightSpec(bits, group_size, symmetric), 0.0, 0.0
    for seed in range(4):
        W, H, abs_max = problem(seed)
        ours += output_error(W, quantized(W, H, abs_max, spec, act_order=act_order).dequantize(), H)
        nearest += output_error(W, round_to_nearest(W, spec).dequantize(), H)
    assert ours < 0.9 * nearest


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_every_block_is_closer_to_its_output_than_with_round_to_nearest(
    build: Callable[[], SpeechModel], bits: int
) -> None:
    ours = block_errors(build, "method=quik", f"wbits={bits}")
    assert (ours < block_errors(build, "method=rtn", f"wbits={bits}")).all()


def test_the_columns_with_the_largest_inputs_stay_at_sixteen_bits() -> None:
    W, H, abs_max = problem()
    weight = quantized(W, H, abs_max, WeightSpec(4, -1, False))
    assert weight.exact_inputs is not None
    assert weight.exact_inputs.tolist() == abs_max.topk(4).indices.sort().values.tolist()


def test_outlier_columns_make_up_for_the_errors_of_all_others() -> None:
    """They move away from the original weight, and leaving them where they were would cost more."""
    W, H, abs_max = problem()
    weight = quantized(W, H, abs_max, WeightSpec(3, -1, False))
    Q = weight.dequantize()
    put_back = Q.clone()
    put_back[:, weight.exact_inputs] = W[:, weight.exact_inputs]
    assert output_error(W, Q, H) < output_error(W, put_back, H)


def test_outlier_columns_widen_no_grid() -> None:
    W, H, abs_max = problem()
    column = int(abs_max.argmax())
    before = quantized(W, H, abs_max, WeightSpec(4, 16, False)).scale
    W[:, column] *= 1000
    assert torch.equal(quantized(W, H, abs_max, WeightSpec(4, 16, False)).scale, before)


@pytest.mark.parametrize("group_size", [-1, 16])
def test_more_outliers_mean_a_smaller_error_and_more_bytes(group_size: int) -> None:
    W, H, abs_max = problem()
    spec = WeightSpec(3, group_size, False)
    weights = [quantized(W, H, abs_max, spec, outliers=outliers) for outliers in (1, 4, 16, 63)]
    errors = [output_error(W, weight.dequantize(), H) for weight in weights]
    assert errors == sorted(errors, reverse=True)
    sizes = [weight.nbytes for weight in weights]
    assert sizes == sorted(set(sizes))


def test_sixteen_bits_are_stored_for_outliers_and_no_codes() -> None:
    W, H, abs_max = problem()
    weight = quantized(W, H, abs_max, WeightSpec(4, -1, True), outliers=8)
    assert 8 * weight.nbytes == 16 * (56 * 4 + 8 * 16 + 16) + 8 * 16


@pytest.mark.parametrize(("share", "expected"), [(0.0625, 4), (0.001, 1), (1.0, 63)])
def test_the_share_scales_with_the_width(share: float, expected: int) -> None:
    speech = tiny_whisper()
    settings = composed("method=quik", f"method.outlier_share={share}")
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    dense = quantizer.weights[speech.graph.linears[0].path].dense
    assert dense is not None
    assert len(dense.columns) == expected


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_the_inputs_of_outlier_columns_are_not_rounded_after_reloading_either(
    build: Callable[[], SpeechModel], tmp_path: Path
) -> None:
    settings, speech = composed("method=quik", "bits=w4a4"), build()
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    save_weights(tmp_path / "model", quantizer.weights, leftover_tensors(speech.module, quantizer.weights))
    reloaded = build(seed=1)
    restore(reloaded, tmp_path / "model", input_bits(reloaded.graph, settings))
    for path, weight in quantizer.weights.items():
        for model in (speech, reloaded):
            linear = model.module.get_submodule(path)
            assert isinstance(linear, QuantLinear)
            assert torch.equal(linear.exact, weight.exact_inputs)


def test_weights_that_sixteen_bits_cannot_hold_are_refused() -> None:
    W, H, abs_max = problem()
    W[0, int(abs_max.argmax())] = 1e6
    with pytest.raises(ValueError, match="16-bit column exceeds"):
        quantized(W, H, abs_max, WeightSpec(4, -1, False))
