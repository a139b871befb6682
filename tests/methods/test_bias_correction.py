from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from src.calib.statistics import measure
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.models.speech import SpeechModel
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

MODELS: dict[str, Callable[[], SpeechModel]] = {"sandbox_whisper": tiny_whisper, "sandbox_moonshine": tiny_moonshine}


def quantized(model: str, *overrides: str) -> tuple[SpeechModel, Quantizer]:
    settings = composed(f"model={model}", "bits=w3a16", "group_size=-1", "calib.propagate=fp", *overrides)
    speech: SpeechModel = MODELS[model]()
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return speech, quantizer


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_the_mean_error_of_every_output_that_has_a_bias_is_gone(model: str, method: str) -> None:
    """Its own weights' error, that is, on the inputs that were seen."""
    plain, _ = quantized(model, f"method={method}")
    corrected, quantizer = quantized(model, f"method={method}", "bias_correction=true")
    fp: SpeechModel = MODELS[model]()
    statistics = measure(fp, noise_calibration(fp, 2), gram=False)
    checked = 0
    for linear in fp.graph.linears:
        W, b = (getattr(fp.module.get_submodule(linear.path), name) for name in ("weight", "bias"))
        Q = quantizer.weights[linear.path].dequantize()
        powers = statistics[fp.graph.link_of(linear.path).name].powers
        assert powers is not None
        missing = (W - Q) @ powers[0].float()
        found = corrected.module.get_submodule(linear.path).bias
        assert (found is None) == (b is None)
        if found is not None:
            checked += 1
            torch.testing.assert_close(found, b + missing, rtol=2e-3, atol=2e-3)
            assert torch.equal(plain.module.get_submodule(linear.path).bias, b.half().float())
    assert checked
