"""Checkpoints load from folders; every mistake a user can make is named with its remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.errors import UserError
from src.models.loading import load, load_config, load_graph, model_identity
from tests.tiny import MOONSHINE, WHISPER, model_settings, tiny_whisper
from tests.tiny.moonshine_streaming import STREAMING, STREAMING_ENCODER


def test_whisper_folder_loads_with_its_prompt_text_and_weights(whisper_folder: Path) -> None:
    speech = load(model_settings(whisper_folder), "cpu", seed=0)
    assert speech.prompt == (90, 93)
    assert speech.eos == 89
    assert speech.text([90, 93, 39, 72, 89]) == "Hi"
    waveform = np.ones(8_000, np.float32)
    expected = tiny_whisper()
    torch.testing.assert_close(
        speech.encode(speech.features([waveform])).states, expected.encode(expected.features([waveform])).states
    )


def test_moonshine_folder_loads_with_its_prompt_and_text(moonshine_folder: Path) -> None:
    speech = load(model_settings(moonshine_folder, "moonshine"), "cpu", seed=0)
    assert speech.prompt == (1,)
    assert speech.text([1, 3, 2]) == "hello"


def test_multilingual_whisper_is_told_language_and_task(copy: Path) -> None:
    generation = json.loads((copy / "generation_config.json").read_text())
    generation |= {"is_multilingual": True, "lang_to_id": {"<|en|>": 91}, "task_to_id": {"transcribe": 92}}
    (copy / "generation_config.json").write_text(json.dumps(generation))
    assert load(model_settings(copy, language="en"), "cpu", seed=0).prompt == (90, 91, 92, 93)
    with pytest.raises(UserError, match=r"model\.language: 'tlh' is not a language") as caught:
        load(model_settings(copy, language="tlh"), "cpu", seed=0)
    assert "Available: en" in str(caught.value)


def test_language_of_an_english_only_whisper_is_refused(whisper_folder: Path) -> None:
    told = r"model\.language: 'en' is .* English-only\. Use model\.language=null \(.* is dataset\.language\)"
    with pytest.raises(UserError, match=told):
        load(model_settings(whisper_folder, language="en"), "cpu", seed=0)


def test_random_weights_depend_on_the_seed_alone() -> None:
    settings = model_settings("openai/whisper-tiny", random_weights=True, architecture=WHISPER)
    weights = [load(settings, "cpu", seed).module.model.encoder.conv1.weight for seed in (0, 0, 1)]
    torch.manual_seed(5)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_random_weights_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(model_settings("x/y", "moonshine", random_weights=True, architecture=MOONSHINE), "cpu", seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_random_weights_read_a_folder_where_no_architecture_is_given(whisper_folder: Path) -> None:
    speech = load(model_settings(whisper_folder, random_weights=True), "cpu", seed=0)
    assert speech.module.config.d_model == WHISPER["d_model"]


def test_graph_needs_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert len(load_graph(model_settings(copy)).encoder) == WHISPER["encoder_layers"]


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "src/sandbox/nowhere", "a/b/c"])
def test_absent_folder_is_named(source: str) -> None:
    with pytest.raises(UserError, match=r"model\.source: there is no folder"):
        load(model_settings(source), "cpu", seed=0)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are not loaded") as caught:
        load(model_settings(copy), "cpu", seed=0)
    assert "save_pretrained" in caught.value.remedy


def test_other_family_is_refused(whisper_folder: Path) -> None:
    with pytest.raises(UserError, match=r"is a whisper model, but model\.family is moonshine"):
        load(model_settings(whisper_folder, "moonshine"), "cpu", seed=0)


def test_folder_without_a_config_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"no readable config\.json"):
        load(model_settings(copy), "cpu", seed=0)
    with pytest.raises(UserError, match=r"no config\.json"):
        model_identity(model_settings(copy, random_weights=True))


def test_folder_without_a_tokenizer_is_refused(copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(UserError, match="lacks its feature extractor or tokenizer"):
        load(model_settings(copy), "cpu", seed=0)


def test_whisper_without_generation_settings_is_refused(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    with pytest.raises(UserError, match=r"generation_config\.json lacks"):
        load(model_settings(copy), "cpu", seed=0)


def test_extractor_with_another_window_is_refused(copy: Path) -> None:
    extractor = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(extractor | {"chunk_length": 30}))
    with pytest.raises(UserError, match="makes 3000 frames but the encoder takes 200"):
        load(model_settings(copy), "cpu", seed=0)


def test_misspelt_architecture_field_is_refused() -> None:
    settings = model_settings("x/y", random_weights=True, architecture={**WHISPER, "d_modell": 32})
    with pytest.raises(UserError, match=r"model\.architecture\.d_modell: no such field\. Did you mean 'd_model'"):
        load_config(settings)
    architecture = {**STREAMING, "encoder_config": {**STREAMING_ENCODER, "hidden_sise": 32}}
    nested = model_settings("x/y", "moonshine_streaming", random_weights=True, architecture=architecture)
    with pytest.raises(UserError, match=r"encoder_config\.hidden_sise: no such field\. Did you mean 'hidden_size'"):
        load_config(nested)


@pytest.mark.parametrize("change", [{"d_model": 63}, {"d_model": "wide"}, {"vocab_size": 10}])
def test_impossible_architecture_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^model\.architecture: "):
        load_graph(model_settings("x/y", random_weights=True, architecture=WHISPER | change))
