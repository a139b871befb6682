from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from src.decoding.decode import greedy
from src.methods.parts.augmentation import LONGEST, augment, perturb
from src.models.speech import SpeechModel
from tests.calib.clips import noise_calibration
from tests.tiny import tiny_moonshine, tiny_whisper

RATE = 16_000
BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


@BUILDERS
def test_tokens_are_what_the_teacher_says_of_the_changed_clip(build: Callable[[], SpeechModel]) -> None:
    teacher = build()
    clips = noise_calibration(teacher, 2)
    more = augment(teacher, clips, 3, seed=1)
    assert len(set(more.ids)) == len(more.ids) == 3 * len(clips.ids)
    lengths = [len(each) for each in more.waveforms]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] <= min(LONGEST * RATE, teacher.window)
    for waveform, features, tokens in zip(more.waveforms, more.features, more.tokens, strict=True):
        assert torch.equal(features, teacher.features([waveform])[0])
        [said] = greedy(teacher, [features], [len(waveform)], suppress=True)
        assert tokens == [*teacher.prompt, *said]


def test_the_seed_alone_decides() -> None:
    teacher = tiny_moonshine()
    clips = noise_calibration(teacher, 2)
    one, same, other = (augment(teacher, clips, 1, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one.waveforms, same.waveforms, strict=True))
    assert not all(len(a) == len(b) for a, b in zip(one.waveforms, other.waveforms, strict=True))


def test_a_tone_keeps_its_loudness_and_nearly_its_pitch() -> None:
    """Whatever is drawn: pitch within the speeds, loudness as it was, noise ten decibels below it or more."""
    time = np.arange(4 * RATE) / RATE
    tone = np.sin(2 * np.pi * 400 * time).astype(np.float32)
    for seed in range(40):
        changed = perturb([tone], 0, np.random.default_rng(seed), RATE)
        assert changed.dtype == np.float32
        spectrum = np.abs(np.fft.rfft(changed))
        pitch = spectrum.argmax() * RATE / len(changed)
        assert 400 * 0.89 < pitch < 400 * 1.11
        assert 0.65 < np.sqrt(np.mean(changed[-RATE // 2 :] ** 2)) < 0.8
