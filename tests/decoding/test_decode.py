"""Greedy decoding: what transformers' generate gives, one utterance at a time or many together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationMixin
from transformers.cache_utils import DynamicLayer

from src.data.utterance import Utterance
from src.decoding.decode import batches, greedy
from src.models.speech import SpeechModel
from tests.tiny import tiny_moonshine, tiny_whisper

Batch = tuple[list[torch.Tensor], list[int]]


def sounds(speech: SpeechModel, count: int = 12) -> Batch:
    """Features and lengths of modulated tones of 0.25 to 1.9 s."""
    random = np.random.default_rng(0)
    waveforms = []
    for _ in range(count):
        time = np.arange(random.integers(4_000, 31_000)) / 16_000
        envelope = np.sin(2 * np.pi * random.uniform(1, 9) * time)
        waveforms.append((0.5 * envelope * np.sin(2 * np.pi * random.uniform(100, 4_000) * time)).astype(np.float32))
    return speech.features(waveforms), [len(waveform) for waveform in waveforms]


def dividing_token(transcripts: list[list[int]]) -> int:
    """The token whose first occurrence differs most between transcripts: as end token, it ends each at another step."""

    def ends(token: int) -> int:
        return len({tokens.index(token) if token in tokens else len(tokens) for tokens in transcripts})

    return max(sorted({token for tokens in transcripts for token in tokens}), key=ends)


@pytest.fixture(params=["whisper", "moonshine"])
def speech(request: pytest.FixtureRequest) -> SpeechModel:
    """A random model whose end token is one it really emits, so that utterances end at different steps."""
    model: SpeechModel = tiny_whisper(seed=8) if request.param == "whisper" else tiny_moonshine(seed=8)
    model.eos = dividing_token(greedy(model, *sounds(model), suppress=True))
    return model


def generated(speech: SpeechModel, feature: torch.Tensor, samples: int, **settings: Any) -> list[int]:
    """Transformers' own greedy search on one utterance."""
    output = GenerationMixin.generate(
        speech.module,
        **{speech.module.main_input_name: feature.unsqueeze(0)},
        decoder_input_ids=torch.tensor([speech.prompt]),
        max_new_tokens=speech.max_new_tokens(samples),
        eos_token_id=speech.eos,
        do_sample=False,
        **settings,
    )
    tokens = output[0].tolist()[len(speech.prompt) :]
    return tokens[: tokens.index(speech.eos)] if speech.eos in tokens else tokens


def test_utterances_of_the_fixture_end_at_different_steps(speech: SpeechModel) -> None:
    lengths = {len(tokens) for tokens in greedy(speech, *sounds(speech), suppress=True)}
    assert len(lengths) > 2


@pytest.mark.parametrize("suppress", [True, False])
def test_a_batch_gives_what_generate_gives_alone(speech: SpeechModel, suppress: bool) -> None:
    features, samples = sounds(speech)
    settings = {} if suppress else {"suppress_tokens": None, "begin_suppress_tokens": None}
    together = greedy(speech, features, samples, suppress=suppress)
    alone = [generated(speech, feature, count, **settings) for feature, count in zip(features, samples, strict=True)]
    assert together == alone


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batch_size_and_order_do_not_change_a_token(speech: SpeechModel, size: int) -> None:
    features, samples = sounds(speech)
    expected = greedy(speech, features, samples, suppress=True)
    order = np.random.default_rng(size).permutation(len(features)).tolist()
    for start in range(0, len(order), size):
        part = order[start : start + size]
        decoded = greedy(speech, [features[i] for i in part], [samples[i] for i in part], suppress=True)
        assert decoded == [expected[i] for i in part]


def test_finished_utterances_leave_the_batch(speech: SpeechModel) -> None:
    sizes: list[int] = []
    head = speech.module.get_submodule(speech.graph.head)
    handle = head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    features, samples = sounds(speech)
    transcripts = greedy(speech, features, samples, suppress=True)
    handle.remove()
    caps = [speech.max_new_tokens(count) for count in samples]
    steps = [min(len(tokens) + 1, cap) for tokens, cap in zip(transcripts, caps, strict=True)]
    assert sizes == [sum(step > number for step in steps) for number in range(max(steps))]


def test_cross_attention_keys_are_computed_once(speech: SpeechModel) -> None:
    calls: list[str] = []
    paths = [f"{block.path}.encoder_attn.k_proj" for block in speech.graph.decoder]
    for path in paths:
        module = speech.module.get_submodule(path)
        module.register_forward_hook(lambda module, inputs, output, path=path: calls.append(path))
    greedy(speech, *sounds(speech), suppress=True)
    assert calls == paths


def test_rows_that_go_on_keep_their_own_cache(speech: SpeechModel) -> None:
    """Whichever rows end first: what moves into their places goes on as if it had never moved."""
    features, samples = sounds(speech)
    alone = [greedy(speech, [each], [count], suppress=True)[0] for each, count in zip(features, samples, strict=True)]
    for shift in (0, 5, 9):
        order = [(index + shift) % len(features) for index in range(len(features))]
        decoded = greedy(speech, [features[i] for i in order], [samples[i] for i in order], suppress=True)
        assert decoded == [alone[i] for i in order]


def test_each_clip_has_its_own_cap() -> None:
    speech = tiny_moonshine(seed=1)
    speech.eos = -1  # never emitted
    features, samples = sounds(speech)
    lengths = [len(tokens) for tokens in greedy(speech, features, samples, suppress=True)]
    assert lengths == [int(count * 6.5 // 16_000 + 2) for count in samples]


def test_suppressed_tokens_are_never_emitted_and_first_step_ones_only_later() -> None:
    free = tiny_whisper(seed=8)
    features, samples = sounds(free)
    transcripts = greedy(free, features, samples, suppress=False)
    first, common = transcripts[0][0], transcripts[0][-1]
    assert first != common
    speech = tiny_whisper(seed=8, suppress_tokens=[common], begin_suppress_tokens=[first])
    speech.module.generation_config.suppress_tokens = [common]
    speech.module.generation_config.begin_suppress_tokens = [first]
    suppressed = greedy(speech, features, samples, suppress=True)
    assert not any(common in tokens for tokens in suppressed)
    assert not any(tokens[0] == first for tokens in suppressed)
    assert greedy(speech, features, samples, suppress=False) == transcripts


def test_the_cache_is_made_of_the_given_layers(speech: SpeechModel) -> None:
    class Forgetful(DynamicLayer):
        """Stores keys of zeros, so attention averages."""

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().update(torch.zeros_like(key_states), value_states, *args, **kwargs)

    features, samples = sounds(speech)
    plain = greedy(speech, features, samples, suppress=True)
    assert greedy(speech, features, samples, suppress=True, kv_layer=Forgetful) != plain


def utterances(lengths: list[int]) -> list[Utterance]:
    return [Utterance(id=f"{index:02d}", text="", samples=length, audio=b"") for index, length in enumerate(lengths)]


def test_batches_hold_every_clip_once_longest_first() -> None:
    lengths = [5, 1, 9, 9, 3, 7, 2]
    plan = batches(utterances(lengths), 3)
    assert plan == [[2, 3, 5], [0, 4, 6], [1]]


def test_batches_do_not_depend_on_the_order_of_the_corpus() -> None:
    clips = utterances(list(np.random.default_rng(0).integers(1, 9, 40)))
    shuffled = [clips[index] for index in np.random.default_rng(1).permutation(40)]
    named = [[clips[index].id for index in batch] for batch in batches(clips, 7)]
    assert named == [[shuffled[index].id for index in batch] for batch in batches(shuffled, 7)]
