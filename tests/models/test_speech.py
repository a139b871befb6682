"""A recogniser's results do not depend on the batch, and equal those of transformers' own forward and generate."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationMixin

from src.models.speech import Encoded, SpeechModel
from tests.tiny import tiny_moonshine, tiny_whisper

TOKENS = torch.tensor([[5, 9, 4, 33, 60, 7], [8, 8, 1, 50, 2, 71]])
Builder = Callable[..., SpeechModel]


@pytest.fixture(params=[tiny_whisper, tiny_moonshine], ids=["whisper", "moonshine"])
def speech(request: pytest.FixtureRequest) -> SpeechModel:
    return request.param()


def _waveforms(*seconds: float) -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [(0.1 * noise.standard_normal(int(16_000 * s))).astype(np.float32) for s in seconds]


def _encode(speech: SpeechModel, *seconds: float) -> Encoded:
    return speech.encode(speech.features(_waveforms(*seconds)))


def _greedy(speech: SpeechModel, encoded: Encoded, steps: int) -> list[int]:
    """Greedy ids of the one utterance in ``encoded``, including eos."""
    cache = speech.new_cache()
    tokens, ids = torch.tensor([speech.prompt]), []
    for step in range(steps):
        logits = speech.decode_step(tokens, encoded, cache)
        logits[:, speech.suppressed(first_step=step == 0)] = -torch.inf
        tokens = logits.argmax(-1, keepdim=True)
        ids.append(int(tokens))
        if ids[-1] == speech.eos:
            break
    return ids


def test_module_is_frozen_and_in_evaluation_mode(speech: SpeechModel) -> None:
    assert not speech.module.training
    assert not any(parameter.requires_grad for parameter in speech.module.parameters())


def test_batch_encodes_each_utterance_as_if_alone(speech: SpeechModel) -> None:
    waveforms = _waveforms(1.7, 0.4, 1.1, 0.02)
    features = speech.features(waveforms)
    together = speech.encode(features)
    for row, feature in enumerate(features):
        alone = speech.encode([feature])
        frames = alone.states.shape[1]
        assert together.mask[row].sum() == frames
        torch.testing.assert_close(together.states[row, :frames], alone.states[0], atol=1e-5, rtol=1e-5)


def test_batch_decodes_each_utterance_as_if_alone(speech: SpeechModel) -> None:
    features = speech.features(_waveforms(1.7, 0.4, 1.1))
    together = speech.encode(features)
    for row, feature in enumerate(features):
        padded = Encoded(together.states[[row]], together.mask[[row]])
        assert _greedy(speech, padded, 12) == _greedy(speech, speech.encode([feature]), 12)


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.3, 1.9, 1.96, 1.99, 2.0, 2.7])
@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_of_a_clip_is_that_of_its_whole_window(seconds: float, mels: int) -> None:
    speech = tiny_whisper(num_mel_bins=mels)  # a window of 2 s
    time = np.arange(round(16_000 * seconds)) / 16_000
    (noise,) = _waveforms(seconds)
    clip = (np.sin(3_000 * time**2) * time + 0.01 * noise).astype(np.float32)
    (found,) = speech.features([clip])
    expected = WhisperFeatureExtractor(feature_size=mels, chunk_length=2)(
        np.pad(clip, (0, max(0, 32_000 - len(clip))))[:32_000], sampling_rate=16_000, return_tensors="pt"
    )["input_features"][0]
    assert found.shape == expected.shape == (mels, 200)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_cast_changes_the_arithmetic_and_keeps_buffers(speech: SpeechModel) -> None:
    (feature,) = speech.features(_waveforms(1.3))
    exact = speech.encode([feature]).states
    buffers = {name: buffer.clone() for name, buffer in speech.module.named_buffers()}
    speech.cast(torch.bfloat16)
    half = speech.encode([feature]).states
    assert half.dtype == torch.bfloat16
    assert 0 < (half.float() - exact).norm() < 0.1 * exact.norm()
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in speech.module.named_buffers())


def test_encode_equals_transformers_encoder(speech: SpeechModel) -> None:
    (feature,) = speech.features(_waveforms(1.3))
    expected = speech.module.model.encoder(feature[None]).last_hidden_state
    torch.testing.assert_close(speech.encode([feature]).states, expected, atol=1e-6, rtol=1e-6)


def test_utterance_shorter_than_the_front_end_still_has_a_frame(speech: SpeechModel) -> None:
    encoded = speech.encode(speech.features([np.zeros(0, np.float32), np.ones(3, np.float32)]))
    assert encoded.mask.any(dim=1).all()
    assert torch.isfinite(encoded.states).all()


def test_walking_the_decoder_blocks_equals_its_own_forward(speech: SpeechModel) -> None:
    encoded = _encode(speech, 1.2, 0.5)
    hidden, arguments = speech.decoder_inputs(TOKENS, encoded)
    for block in speech.graph.decoder:
        hidden = speech.block(block)(hidden, **arguments)
    hidden = speech.module.get_submodule(speech.graph.decoder_norm)(hidden)
    logits = speech.module.get_submodule(speech.graph.head)(hidden)
    torch.testing.assert_close(logits, speech.forward_tokens(TOKENS, encoded), atol=1e-5, rtol=1e-5)


def test_cached_steps_equal_teacher_forcing(speech: SpeechModel) -> None:
    encoded = _encode(speech, 1.2, 0.5)
    cache = speech.new_cache()
    steps = [speech.decode_step(TOKENS[:, :2], encoded, cache)]
    steps += [speech.decode_step(TOKENS[:, i : i + 1], encoded, cache) for i in range(2, TOKENS.shape[1])]
    expected = speech.forward_tokens(TOKENS, encoded)[:, 1:]
    torch.testing.assert_close(torch.stack(steps, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_padding_after_the_tokens_changes_nothing_before_it(speech: SpeechModel) -> None:
    encoded = _encode(speech, 1.2, 0.5)
    expected = speech.forward_tokens(TOKENS[:, :3], encoded)
    torch.testing.assert_close(speech.forward_tokens(TOKENS, encoded)[:, :3], expected, atol=1e-5, rtol=1e-5)


def test_greedy_equals_transformers_generate(speech: SpeechModel) -> None:
    (feature,) = speech.features(_waveforms(1.3))
    generated = GenerationMixin.generate(
        speech.module,
        feature[None],
        decoder_input_ids=torch.tensor([speech.prompt]),
        max_new_tokens=15,
        do_sample=False,
    )
    assert generated[0, len(speech.prompt) :].tolist() == _greedy(speech, speech.encode([feature]), 15)


def test_cache_layers_come_from_the_factory(speech: SpeechModel) -> None:
    class Halved(DynamicLayer):
        def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> object:
            return super().update(key_states, value_states / 2, *args, **kwargs)

    encoded = _encode(speech, 1.2, 0.5)
    cache = speech.new_cache(Halved)
    halved = speech.decode_step(TOKENS, encoded, cache)
    assert not torch.allclose(halved, speech.forward_tokens(TOKENS, encoded)[:, -1])
    layers = [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
    assert len(layers) == 2 * len(speech.graph.decoder)
    assert all(isinstance(layer, Halved) for layer in layers)


def test_finished_utterances_can_leave_the_batch(speech: SpeechModel) -> None:
    encoded = _encode(speech, 1.2, 0.5)
    cache = speech.new_cache()
    speech.decode_step(TOKENS[:, :3], encoded, cache)
    rows = torch.tensor([1])
    cache.batch_select_indices(rows)
    step = speech.decode_step(TOKENS[rows, 3:4], Encoded(encoded.states[rows], encoded.mask[rows]), cache)
    torch.testing.assert_close(step, speech.forward_tokens(TOKENS, encoded)[rows, 3], atol=1e-5, rtol=1e-5)


def test_text_without_a_tokenizer_is_the_ids(speech: SpeechModel) -> None:
    assert speech.text([4, 7, 7]) == "4 7 7"


def test_suppressed_ids_come_from_the_checkpoint() -> None:
    speech = tiny_whisper(suppress_tokens=[7, 3, 500], begin_suppress_tokens=[20])
    assert speech.suppressed(first_step=False).tolist() == [3, 7]
    assert speech.suppressed(first_step=True).tolist() == [3, 7, 20]
    assert tiny_moonshine().suppressed(first_step=True).tolist() == []


def test_prompt_is_longer_for_multilingual_whisper() -> None:
    assert len(tiny_whisper().prompt) == 2
    assert len(tiny_whisper(language="en").prompt) == 4
    assert tiny_moonshine().prompt == (1,)


def test_whisper_stops_where_its_positions_end() -> None:
    speech = tiny_whisper(max_target_positions=32)
    assert speech.max_new_tokens(16_000) == 30
    speech.module.generation_config.max_length = 20
    assert speech.max_new_tokens(16_000) == 20


def test_moonshine_stops_after_the_tokens_its_audio_can_hold() -> None:
    speech = tiny_moonshine(max_position_embeddings=64)
    assert speech.max_new_tokens(16_000) == 8
    assert speech.max_new_tokens(30 * 16_000) == 63
    speech.module.generation_config.max_length = 40
    assert speech.max_new_tokens(30 * 16_000) == 39
    assert tiny_moonshine(max_tokens_per_second=13).max_new_tokens(16_000) == 15


def test_whisper_warns_when_it_cuts_long_clips(caplog: pytest.LogCaptureFixture) -> None:
    speech = tiny_whisper()  # a window of 2 s
    with caplog.at_level(logging.WARNING, logger="src.models.whisper.speech"):
        features = speech.features(_waveforms(2.5, 1.0, 3.0))
    assert {tuple(feature.shape) for feature in features} == {(80, 200)}
    assert "2 clips are longer than the 2 s window" in caplog.text


def test_whisper_features_of_a_clip_do_not_depend_on_the_others() -> None:
    speech = tiny_whisper()
    first, second = _waveforms(1.0, 1.9)
    torch.testing.assert_close(speech.features([first, 5 * second])[0], speech.features([first])[0], atol=0, rtol=0)
