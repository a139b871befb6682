"""Grids of activations other than the default ones: symmetric, and static from calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from src.calib.statistics import measure
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.asked import check_inputs, input_bits
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.fake import fake_quantize_tokens
from src.quant.inputs import InputGrid, static_grid
from src.quant.linear import QuantLinear, install, rotate_input
from src.quant.restore import restore
from src.quant.rotation import Rotation
from src.stages.point import open_point
from src.stages.quantize import Quantize
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.quant.quantized import logits, quantized
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
STATIC = "activation.range=static"


def ends(grid: InputGrid, bits: int) -> tuple[float, float]:
    """Smallest and largest value on a static grid."""
    assert grid.scale is not None
    assert grid.zero is not None
    zero, scale = float(grid.zero), float(grid.scale)
    return -zero * scale, (2**bits - 1 - zero) * scale


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_symmetric_grid_ends_one_step_apart_from_symmetry(bits: int) -> None:
    grid = static_grid(torch.tensor([-1.0, 0.5]), torch.tensor([0.2, 3.0]), bits, symmetric=True, exact=None)
    low, high = ends(grid, bits)
    step = 6 / (2**bits - 1)
    assert (low, high) == pytest.approx((-(2 ** (bits - 1)) * step, (2 ** (bits - 1) - 1) * step))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_a_static_grid_of_one_token_is_that_tokens_grid(bits: int, symmetric: bool) -> None:
    x = torch.randn(32)
    grid = static_grid(x, x, bits, symmetric=symmetric, exact=None)
    torch.testing.assert_close(grid.round(x, bits), fake_quantize_tokens(x, bits, symmetric))


def test_a_static_grid_clips_what_calibration_never_saw() -> None:
    grid = static_grid(torch.tensor([-1.0]), torch.tensor([2.0]), 8, symmetric=False, exact=None)
    assert grid.round(torch.tensor([-9.0, 9.0]), 8).tolist() == pytest.approx(ends(grid, 8))


def test_exact_inputs_widen_no_static_grid_and_pass_unrounded() -> None:
    module, exact, x = nn.ModuleDict({"fc": nn.Linear(4, 4)}), torch.tensor([1]), torch.randn(6, 4)
    x[:, 1] *= 1000
    grid = static_grid(x.amin(0), x.amax(0), 4, symmetric=False, exact=exact)
    assert ends(grid, 4)[1] < 10
    install(module, "fc", torch.eye(4), 4, exact, grid)
    nn.init.zeros_(module["fc"].bias)
    assert torch.equal(module["fc"](x)[:, 1], x[:, 1])


def test_a_rotation_that_comes_later_keeps_the_grid() -> None:
    module = nn.ModuleDict({"fc": nn.Linear(4, 4)})
    install(module, "fc", None, 4, None, InputGrid(symmetric=True))
    rotate_input(module, "fc", Rotation(torch.eye(4)))
    assert module["fc"].grid.symmetric


@BUILDERS
@pytest.mark.parametrize("bits", [4, 8])
def test_static_ranges_are_the_extremes_of_the_calibration_inputs(build: Callable[[], SpeechModel], bits: int) -> None:
    speech = build()
    statistics = measure(build(), noise_calibration(speech, 2), gram=False)
    settings = composed("method=rtn", "wbits=16", f"abits={bits}", STATIC, "calib.propagate=fp")
    quantizer = Quantizer(speech, build_method(settings.method), settings, None, lambda _: statistics)
    quantizer.run()
    assert set(quantizer.inputs) == {linear.path for linear in speech.graph.linears}
    for path, grid in quantizer.inputs.items():
        seen = statistics[speech.graph.link_of(path).name]
        assert seen.minimum is not None
        assert seen.maximum is not None
        expected = min(float(seen.minimum.min()), 0), max(float(seen.maximum.max()), 0)
        assert grid.scale is not None
        assert ends(grid, bits) == pytest.approx(expected, abs=float(grid.scale) * 0.51)


@BUILDERS
def test_static_ranges_are_those_of_rotated_inputs(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    quantizer = quantized(speech, composed("method=quarot_rtn", "bits=w8a8", STATIC))
    rotated = {p: m for p, m in speech.module.named_modules() if isinstance(m, QuantLinear) and m.rotation is not None}
    assert rotated
    seen = measure(speech, noise_calibration(speech, 2), gram=False)
    for path in rotated:
        link = seen[speech.graph.link_of(path).name]
        assert link.maximum is not None
        assert ends(quantizer.inputs[path], 8)[1] == pytest.approx(float(link.maximum.max()), rel=0.1)


@BUILDERS
@pytest.mark.parametrize("options", [(STATIC,), ("activation.symmetric=true",), (STATIC, "activation.symmetric=true")])
def test_more_bits_lower_the_error(build: Callable[[], SpeechModel], options: tuple[str, ...]) -> None:
    exact = logits(build())
    errors = []
    for bits in (3, 5, 8):
        speech = build()
        quantized(speech, composed("method=rtn", "wbits=16", f"abits={bits}", *options))
        errors.append(float((logits(speech) - exact).norm()))
    assert errors == sorted(errors, reverse=True)


@BUILDERS
@pytest.mark.parametrize("options", [(STATIC,), ("activation.symmetric=true",), (STATIC, "activation.symmetric=true")])
@pytest.mark.parametrize("method", ["rtn", "quarot", "quik"])
def test_reloaded_models_equal_those_in_memory(
    build: Callable[[], SpeechModel], options: tuple[str, ...], method: str, tmp_path: Path
) -> None:
    speech = build()
    quantizer = quantized(speech, composed(f"method={method}", "bits=w4a8", *options))
    path = tmp_path / "model"
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(path, quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    reloaded = build(seed=1)
    restore(reloaded, path, input_bits(reloaded.graph, composed("bits=w4a8")))
    assert torch.equal(logits(reloaded), logits(speech))


def test_the_default_stores_no_grids() -> None:
    assert not quantized(tiny_whisper(), composed("method=rtn", "bits=w4a8")).inputs


@pytest.mark.parametrize(
    "method",
    ["omniquant", "tesseraq", "tesseraq_omniquant", "autoround", "distill", "spinquant", "osplus", "flatquant"],
)
@pytest.mark.parametrize("option", ["activation.range=static", "activation.symmetric=true"])
def test_methods_that_simulate_the_default_grids_refuse_others(method: str, option: str) -> None:
    for bits in ("w4a8", "w4a16"):
        settings = composed(f"method={method}", f"bits={bits}", option)
        built = build_method(settings.method)
        if bits == "w4a16":
            check_inputs(built, settings)
        else:
            with pytest.raises(UserError, match=option.partition("=")[0]):
                check_inputs(built, settings)


def test_static_ranges_make_a_data_free_method_depend_on_the_calibration(tmp_path: Path) -> None:
    def key(*overrides: str) -> tuple[str, bool]:
        point = open_point(composed("method=rtn", f"output_dir={tmp_path}", *overrides))
        return point.quantized.fingerprint, "calibrate" in Quantize().needs(point)

    assert key("bits=w4a8", STATIC)[1]
    assert not key("bits=w4a8")[1]
    assert key("bits=w4a16", STATIC) == key("bits=w4a16")
    keys = [
        key("bits=w4a8", *each)[0] for each in ((), (STATIC,), (STATIC, "calib.n=3"), ("activation.symmetric=true",))
    ]
    assert len(set(keys)) == len(keys)
