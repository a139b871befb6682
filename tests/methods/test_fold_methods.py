"""What all equalisations have in common: smoothquant, osplus, awq, sinq, on both families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from whole_models import MODELS, bench_of, double, largest_relative_error, outputs

from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.base import Method
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.restore import restore
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

ALL = "method.links=[norm,linear,gated]"
FEW = "method.steps=4"
TRANSFORMS = {
    "smoothquant": ("method=smoothquant",),
    "smoothquant-all": ("method=smoothquant", ALL),
    "osplus": ("method=osplus", FEW),
    "osplus-all": ("method=osplus", FEW, ALL),
    "awq": ("method=awq",),
    "awq-means": ("method=awq", "method.weight_means=true"),
    "awq-module": ("method=awq_module", FEW),
    "sinq": ("method=sinq",),
    "sinq-twice": ("method=sinq", "method.passes=2", ALL),
}
PAIRS = {
    "smoothquant": (),
    "smoothquant_gptq": (),
    "osplus": (FEW,),
    "osplus_gptq": (FEW,),
    "awq": (),
    "awq_scale": (),
    "awq_module": (FEW,),
    "awq_gptq": (),
    "sinq": (),
}
FAMILIES = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
NAMES = pytest.mark.parametrize("name", ["smoothquant", "osplus", "awq", "sinq"])


def method(*overrides: str) -> Method:
    return build_method(composed(*overrides).method)


@pytest.mark.parametrize("overrides", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize(
    "build", [MODELS[name] for name in ("whisper-64", "moonshine-72")], ids=["whisper", "moonshine"]
)
def test_the_float64_output_does_not_change(build: Callable[[], SpeechModel], overrides: tuple[str, ...]) -> None:
    speech = double(build)
    before, original = outputs(speech), {name: p.clone() for name, p in speech.module.named_parameters()}
    transformed = method(*overrides).transform(bench_of(speech, bits=3, abits=8))
    assert largest_relative_error(outputs(speech), before) < 1e-10
    assert transformed.acted > 0
    after = dict(speech.module.named_parameters())
    moved = [
        link for link in speech.graph.links if not torch.equal(after[w := f"{link.linears[0]}.weight"], original[w])
    ]
    assert len(moved) >= 0.5 * transformed.acted  # the best scale may be 1


def quantized(build: Callable[..., SpeechModel], *overrides: str) -> tuple[SpeechModel, Quantizer]:
    settings, speech = composed(*overrides), build()
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return speech, quantizer


@FAMILIES
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("bits", ["w3a16", "w4a8"])
def test_a_whole_model_is_quantized_alike_every_time_and_reloads(
    build: Callable[..., SpeechModel], name: str, bits: str, tmp_path: Path
) -> None:
    overrides = (f"method={name}", f"bits={bits}", *PAIRS[name])
    (speech, quantizer), (again, _) = quantized(build, *overrides), quantized(build, *overrides)
    result = outputs(speech)
    assert all(torch.isfinite(each).all() for each in result)
    assert all(torch.equal(a, b) for a, b in zip(result, outputs(again), strict=True))
    assert set(quantizer.weights) == {linear.path for linear in speech.graph.linears}
    path = tmp_path / "model.safetensors"
    save_weights(path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights), quantizer.edits)
    reloaded = build(seed=1)
    restore(reloaded, path, input_bits(reloaded.graph, composed(*overrides)))
    assert all(torch.equal(a, b) for a, b in zip(result, outputs(reloaded), strict=True))


@FAMILIES
@NAMES
def test_the_layer_table_says_where_nothing_was_equalised_and_why(build: Callable[..., SpeechModel], name: str) -> None:
    speech, quantizer = quantized(build, f"method={name}", "bits=w4a8", *PAIRS[name])
    notes = {row["linear"]: row["notes"] for row in quantizer.rows}
    behind_gelu = [link.linears[0] for link in speech.graph.links if link.feed.value == "activation"]
    assert all("not equalised: its input comes out of a non-linearity" in notes[path] for path in behind_gelu)
    first = speech.graph.encoder[0].path
    out = speech.graph.link_of(f"{first}.self_attn.q_proj").linears[0]
    assert notes[out] == []


@NAMES
def test_only_links_in_scope_are_touched(name: str) -> None:
    original = tiny_whisper()
    speech, quantizer = quantized(tiny_whisper, f"method={name}", "bits=w4a8", "scope.encoder=false", *PAIRS[name])
    for linear in (linear for block in original.graph.encoder for linear in block.linears):
        before = original.module.get_parameter(f"{linear.path}.weight")
        assert torch.equal(speech.module.get_parameter(f"{linear.path}.weight"), before.half().float())
    assert any(row["wbits"] == 4 for row in quantizer.rows)


@pytest.mark.parametrize("rounder", ["rtn", "gptq", "hqq"])
@NAMES
def test_the_rounder_can_be_chosen_on_the_command_line(name: str, rounder: str) -> None:
    composition = method(f"method={name}", f"method@method.rounder={rounder}")
    assert composition.rounder.name == rounder  # type: ignore[attr-defined]
    assert composition.needs.calibration == (name != "sinq" or rounder == "gptq")
    assert composition.needs.statistics >= composition.rounder.needs.statistics  # type: ignore[attr-defined]


@pytest.mark.parametrize("rounder", ["fp", "smoothquant"])
@NAMES
def test_a_rounder_that_does_more_or_less_than_round_is_refused(name: str, rounder: str) -> None:
    with pytest.raises(UserError, match=rf"method\.rounder: '{rounder}' does not only round weights"):
        method(f"method={name}", f"method@method.rounder={rounder}")


def test_nothing_to_act_on_is_an_error() -> None:
    settings: Any = composed("method=smoothquant", "method.links=[gated]", "bits=w8a8")  # Whisper has no gates
    speech = tiny_whisper()
    with pytest.raises(UserError, match="smoothquant found nothing in tiny_whisper that it could transform"):
        Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2)).run()


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
@pytest.mark.parametrize("method", ["smoothquant", "awq", "sinq"])
def test_statistics_after_scaling_follow_from_those_before(method: str, build: Callable[[], SpeechModel]) -> None:
    """What lets a scaled model do without a second pass over the clips."""
    bench = bench_of(build())
    before = bench.statistics(gram=True)
    transformed = build_method(composed(f"method={method}").method).transform(bench)
    assert transformed.scales
    for name, after in bench.statistics(gram=True).items():
        scales = transformed.scales.get(name)
        derived = before[name] if scales is None else before[name].divided(scales)
        for field in ("gram", "minimum", "maximum", "abs_mean"):
            measured, expected = getattr(after, field), getattr(derived, field)
            assert (measured - expected).abs().max() < 1e-4 * measured.abs().max(), (name, field)
