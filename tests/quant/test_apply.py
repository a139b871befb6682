"""A method applied to a whole model: nothing is forgotten, and what is stored is what was computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.linear import QuantLinear
from src.quant.loss import relative_output_error
from src.quant.restore import restore
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.quant.quantized import logits, quantized
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


@BUILDERS
@pytest.mark.parametrize("overrides", [("method=rtn", "bits=w3a16"), ("method=gptq", "bits=w4a8", "group_size=32")])
def test_reloaded_model_equals_the_one_in_memory(
    build: Callable[[], SpeechModel], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    settings = composed(*overrides)
    speech = build()
    quantizer = quantized(speech, settings)
    path = tmp_path / "model.safetensors"
    save_weights(path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights), quantizer.edits)
    reloaded = build(seed=1)  # other weights, all of which have to be replaced
    restore(reloaded, path, input_bits(reloaded.graph, settings))
    assert torch.equal(logits(reloaded), logits(speech))


@BUILDERS
def test_every_linear_is_in_the_layer_table(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    rows = quantized(speech, composed("method=rtn", "wbits=4", "scope.cross_attention=false")).rows
    assert [row["linear"] for row in rows] == [linear.path for linear in speech.graph.linears]
    for row in rows:
        outside = "encoder_attn" in row["linear"]
        assert row["wbits"] == (16 if outside else 4)
        assert row.get("skipped") == ("out of scope" if outside else None)
        assert outside or 0 < row["weight_error"] < 0.5


@BUILDERS
def test_fp_changes_nothing_in_a_16_bit_checkpoint(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    speech.module.half().float()
    before = logits(speech)
    quantizer = quantized(speech, composed("method=fp"))
    assert torch.equal(logits(speech), before)
    assert not quantizer.weights
    assert all(row["skipped"] for row in quantizer.rows)


def test_activations_are_quantized_where_in_scope_even_at_16_bit_weights() -> None:
    speech = tiny_whisper()
    quantizer = quantized(speech, composed("method=rtn", "wbits=16", "abits=8", "scope.decoder=false"))
    assert not quantizer.weights
    modules = {linear.path: speech.module.get_submodule(linear.path) for linear in speech.graph.linears}
    wrapped = {path for path, module in modules.items() if isinstance(module, QuantLinear)}
    assert wrapped == {linear.path for linear in speech.graph.linears if linear.component.value != "decoder"}


@BUILDERS
@pytest.mark.parametrize("wbits", [2, 3, 4])
def test_gptq_has_a_lower_output_error_than_rtn_block_by_block(build: Callable[[], SpeechModel], wbits: int) -> None:
    """Both from statistics of the fp model, so that only the rounding differs."""
    from src.calib.statistics import measure

    statistics = measure(build(), noise_calibration(build(), 2), gram=True)
    original = build()
    errors = {}
    for name in ("rtn", "gptq"):
        settings = composed(f"method={name}", f"wbits={wbits}", "calib.propagate=fp")
        quantizer = Quantizer(build(), build_method(settings.method), settings, None, lambda _: statistics)
        quantizer.run()
        errors[name] = torch.tensor(
            [
                relative_output_error(
                    original.module.get_parameter(f"{path}.weight"),
                    weight.dequantize(),
                    statistics[original.graph.link_of(path).name].gram,
                )
                for path, weight in quantizer.weights.items()
            ]
        )
    assert (errors["gptq"] < errors["rtn"]).all()
