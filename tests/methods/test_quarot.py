"""Rotations leave the model's output alone, remove its outliers, and travel with its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer
from whole_models import MODELS, bench_of, double, largest_relative_error, outputs, with_outliers

from src.data.utterance import Utterance
from src.decoding import transcribe
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.methods.parts.hadamard import has_hadamard
from src.models.graph import Feed
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.fake import kv_layer_factory
from src.quant.linear import QuantLinear
from src.quant.restore import restore
from src.quant.structure import RMSNorm, key_rotation
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.data.clips import tone
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def transform(speech: SpeechModel, *overrides: str, seed: int = 0) -> dict[str, str]:
    """Applies quarot's transform; returns its notes."""
    bench = bench_of(speech, seed=seed)
    transformed = build_method(composed("method=quarot", *overrides).method).transform(bench)
    assert transformed.acted == len(speech.graph.links)
    return dict(transformed.notes)


def quantized(speech: SpeechModel, *overrides: str) -> Quantizer:
    settings = composed(*overrides)
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("online", ["true", "false"])
def test_the_output_stays_as_it_is(name: str, online: str) -> None:
    speech = double(MODELS[name])
    before = outputs(speech)
    transform(speech, f"method.online={online}")
    assert largest_relative_error(outputs(speech), before) < 1e-10


@BUILDERS
def test_every_weight_inside_the_model_was_rotated_and_every_norm_but_the_last_replaced(
    build: Callable[[], SpeechModel],
) -> None:
    speech, original = build(), build()
    transform(speech)
    for linear in speech.graph.linears:
        W, before = (each.module.get_parameter(f"{linear.path}.weight") for each in (speech, original))
        assert (W - before).norm() > 0.3 * before.norm(), linear.path
    layer_norms = [name for name, module in speech.module.named_modules() if isinstance(module, nn.LayerNorm)]
    assert layer_norms == [speech.graph.decoder_norm]
    assert sum(isinstance(module, RMSNorm) for module in speech.module.modules()) == len(
        [link for link in speech.graph.links if link.feed is Feed.NORM]
    )
    head = f"{speech.graph.head}.weight"
    assert torch.equal(speech.module.state_dict()[head], original.module.state_dict()[head])


@BUILDERS
def test_online_rotations_are_where_nothing_folds_and_can_be_left_out(build: Callable[[], SpeechModel]) -> None:
    def rotated(speech: SpeechModel) -> set[str]:
        paths = [linear.path for linear in speech.graph.linears]
        return {path for path in paths if isinstance(speech.module.get_submodule(path), QuantLinear)}

    speech, offline = build(), build()
    transform(speech)
    transform(offline, "method.online=false")
    links = speech.graph.links
    assert rotated(speech) == {path for link in links if link.feed is not Feed.NORM for path in link.linears}
    assert rotated(offline) == set()


@BUILDERS
def test_inputs_that_stay_unrotated_are_noted(build: Callable[[], SpeechModel]) -> None:
    notes = transform(build(), "method.online=false")
    assert {path.rpartition(".")[2] for path in notes} == {"fc2"}
    assert all("not rotated" in note for note in notes.values())


@BUILDERS
@pytest.mark.parametrize("overrides", [("bits=w4a4",), ("bits=w3a16", "group_size=32"), ("bits=w4a8", "wbits=16")])
@pytest.mark.parametrize("method", ["quarot", "quarot_rtn"])
def test_reloaded_model_equals_the_one_in_memory(
    build: Callable[[], SpeechModel], overrides: tuple[str, ...], method: str, tmp_path: Path
) -> None:
    speech, reloaded = build(), build(seed=1)  # other weights, all of which have to be replaced
    quantizer = quantized(speech, f"method={method}", *overrides)
    path = tmp_path / "model.safetensors"
    save_weights(path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights), quantizer.edits)
    restore(reloaded, path, input_bits(reloaded.graph, composed(f"method={method}", *overrides)))
    assert all(torch.equal(a, b) for a, b in zip(outputs(reloaded), outputs(speech), strict=True))
    assert torch.equal(key_rotation(reloaded.module).right, key_rotation(speech.module).right)


@BUILDERS
def test_stored_at_16_bits_it_is_the_original_up_to_float16(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    before = outputs(speech)
    quantized(speech, "method=quarot_rtn", "bits=w16a16")
    assert largest_relative_error(outputs(speech), before) < 5e-3


def peaks(speech: SpeechModel) -> Tensor:
    """Largest over mean magnitude of each link's input."""
    statistics = bench_of(speech).statistics(gram=False)
    found = [statistics[link.name] for link in speech.graph.links]
    return torch.stack([each.abs_max.max() / each.abs_mean.mean() for each in found])


@BUILDERS
def test_outliers_are_spread(build: Callable[[], SpeechModel]) -> None:
    speech = with_outliers(build, 30)
    before = peaks(speech)
    transform(speech)
    norms = torch.tensor([link.feed is Feed.NORM for link in speech.graph.links])
    assert (peaks(speech)[norms] < before[norms] * 0.8).all()
    assert (peaks(speech) < 12).all()
    assert (before[norms] > 12).sum() >= 2, "the model has outliers to begin with"


@BUILDERS
@pytest.mark.parametrize(("abits", "share"), [(4, 0.96), (6, 0.75)])
def test_with_outliers_low_bit_activations_are_better_rotated(
    build: Callable[[], SpeechModel], abits: int, share: float
) -> None:
    expected = outputs(with_outliers(build))[0]
    errors = {}
    for method in ("rtn", "quarot_rtn"):
        speech = with_outliers(build)
        quantized(speech, f"method={method}", "wbits=16", f"abits={abits}")
        errors[method] = float((outputs(speech)[0] - expected).norm())
    assert errors["quarot_rtn"] < share * errors["rtn"]


@BUILDERS
def test_rotated_keys_change_nothing_but_what_a_quantized_cache_rounds(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    transform(speech)
    rotation = key_rotation(speech.module)
    keys = torch.randn(1, 2, 5, speech.graph.head_dim)
    torch.testing.assert_close(rotation.undo(rotation(keys)), keys)
    assert kv_layer_factory(4, rotation)().rotation is rotation
    unrotated = build()
    transform(unrotated, "method.keys=false")
    assert key_rotation(unrotated.module) is None


@BUILDERS
def test_transcription_uses_a_cache_that_rotates_keys(
    build: Callable[[], SpeechModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layers: list[Any] = []
    monkeypatch.setattr(transcribe, "greedy", lambda *_, kv_layer, **__: layers.append(kv_layer()) or [[]])
    speech = build()
    transform(speech)
    clip = Utterance("a", "a", 16_000, tone(1, 440))
    for bits in (4, 16):
        transcribe.transcribe_corpus(speech, [clip], tmp_path / f"{bits}", batch_size=1, suppress=True, kv_bits=bits)
    assert layers[0].rotation is key_rotation(speech.module)
    assert type(layers[1]) is DynamicLayer


def test_sizes_without_a_hadamard_matrix_are_noted() -> None:
    speech = MODELS["moonshine-54"]()
    notes = transform(speech)
    assert not has_hadamard(54)
    assert set(notes) == {linear.path for linear in speech.graph.linears}
    out = f"{speech.graph.encoder[0].path}.self_attn.o_proj"
    assert "size 18: a random orthogonal one" in notes[out]
    assert "size 54: the factor of size 27" in notes[out]
    assert transform(tiny_whisper()) == {}


def test_the_seed_decides_the_rotations() -> None:
    first, again, other = tiny_whisper(), tiny_whisper(), tiny_whisper()
    for speech, seed in ((first, 0), (again, 0), (other, 1)):
        transform(speech, seed=seed)
    weights = [speech.module.get_parameter("model.encoder.layers.0.fc1.weight") for speech in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("rounder", ["quarot", "fp"])
def test_a_rounder_only_rounds(rounder: str) -> None:
    inner = composed(f"method={rounder}").method
    with pytest.raises(UserError, match=rf"method\.rounder: '{rounder}' does not only round weights"):
        build_method({**composed("method=quarot").method, "rounder": inner})
