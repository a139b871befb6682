"""The parts of the training recipe: features, distortions, schedule, and a step of each recipe."""

import math
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from tests.sandbox.making.acoustics import (
    CLEAN,
    OTHER,
    Distortion,
    add_noise,
    coloured_noise,
    distort,
    noise_bank,
    telephone,
)
from tests.sandbox.making.features import log_mel
from tests.sandbox.making.grammar import distinct_sentences
from tests.sandbox.making.pool import Pool, _write_shard
from tests.sandbox.making.recipe import Schedule
from tests.sandbox.making.recipes import RECIPES
from tests.sandbox.making.script import script
from tests.sandbox.making.synthesis import RATE
from tests.sandbox.making.training import BATCH, Trainer

SECONDS = 6


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def bank(generator: torch.Generator) -> torch.Tensor:
    return noise_bank([torch.randn(25 * RATE, generator=generator)] * 6, generator)


def test_training_features_are_the_feature_extractors(generator: torch.Generator) -> None:
    audio = torch.zeros(3, SECONDS * RATE)
    for row, seconds in enumerate((1.3, 2.0, 5.9)):
        samples = int(seconds * RATE)
        audio[row, :samples] = 0.1 * torch.randn(samples, generator=generator)
    extractor = WhisperFeatureExtractor(chunk_length=SECONDS)
    expected = extractor(list(audio.numpy()), sampling_rate=RATE, return_tensors="pt").input_features
    torch.testing.assert_close(log_mel(audio), expected, atol=1e-4, rtol=0)


def test_noise_is_added_at_the_ratio_asked_for(bank: torch.Tensor, generator: torch.Generator) -> None:
    audio = torch.randn(4, 2 * RATE, generator=generator)
    snr = torch.tensor([3.0, 5.0, 10.0, 20.0])
    noise = add_noise(audio, torch.full((4,), 2 * RATE), bank, snr, generator) - audio
    measured = 10 * torch.log10(audio.square().mean(1) / noise.square().mean(1))
    torch.testing.assert_close(measured, snr, atol=1e-3, rtol=0)


def test_noises_fall_with_frequency_as_their_names_say(generator: torch.Generator) -> None:
    for exponent in (0.0, 0.5, 1.0):
        power = torch.fft.rfft(coloured_noise(8 * RATE, exponent, generator)).abs().square()
        octaves = [power[8 * low : 16 * low].mean() for low in (250, 1_000)]
        assert math.isclose(10 * torch.log10(octaves[0] / octaves[1]), 20 * exponent * math.log10(4), abs_tol=0.5)


def test_a_telephone_line_keeps_its_band() -> None:
    time = torch.arange(RATE) / RATE
    tones = torch.stack([torch.sin(2 * math.pi * hertz * time) for hertz in (80, 1_000, 6_000)])
    power = telephone(tones)[:, 1_000:-1_000].square().mean(1)
    assert power[1] > 0.45
    assert max(power[0], power[2]) < 0.01


@pytest.mark.parametrize("how", [CLEAN, OTHER, Distortion(reverb=1.0, telephone=1.0)])
def test_distortion_keeps_shape_padding_and_range(how: Distortion, bank: torch.Tensor) -> None:
    audio, lengths = torch.zeros(4, RATE), torch.tensor([RATE, RATE // 2, 12_000, 9_000])
    for row, length in zip(audio, lengths, strict=True):
        row[:length] = 0.3 * torch.randn(int(length))
    first, second = (distort(audio, lengths, bank, how, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == audio.shape
    assert first.abs().max() <= 1.0
    assert all((row[length:] == 0).all() for row, length in zip(first, lengths, strict=True))


def test_the_rate_warms_up_stays_and_decays_to_nearly_nothing() -> None:
    schedule = Schedule(steps=1_000, decay=200, peak=1.0, warm_up=100)
    rates = [schedule.rate(step) for step in (0, 99, 800, 900, 999)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 0.5, 0.005])
    assert [schedule.full_padding(step) for step in (0, 900, 999)] == [0.05, 0.1, 0.3]


@pytest.fixture(scope="module")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of one short utterance many times over: enough for buckets and babble."""
    folder = tmp_path_factory.mktemp("pool")
    wave = (1_000 * np.sin(np.arange(24_000) / 9)).astype(np.int16)
    (folder / "000.json").write_text(str([[24_000, "play jazz"]] * 1_100).replace("'", '"'))
    np.save(folder / "000.npy", np.tile(wave, 1_100))
    return folder


@pytest.mark.parametrize("name", list(RECIPES))
def test_training_steps_resume_where_they_stopped(name: str, pool_folder: Path, tmp_path: Path) -> None:
    recipe = RECIPES[name](RECIPES[name].make_processor(distinct_sentences(400, seed=1)))
    schedule = Schedule(steps=2, decay=1)
    assert list(Trainer(recipe, pool_folder, tmp_path, seed=0).run(schedule, save_every=1, log_every=1)) == [1, 2]
    resumed = Trainer(recipe, pool_folder, tmp_path, seed=0)
    assert resumed.step == 2
    assert list(resumed.run(schedule, save_every=1)) == []
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert len(Pool.read(pool_folder)) >= 32 * BATCH


def test_a_resumed_run_draws_what_it_would_have_drawn(pool_folder: Path, tmp_path: Path) -> None:
    schedule = Schedule(steps=100, decay=1, mild=0)
    recipe = RECIPES["whisper"](RECIPES["whisper"].make_processor(distinct_sentences(400, seed=1)))
    trainer = Trainer(recipe, pool_folder, tmp_path, seed=0)
    drawn = []
    for audio, _, _ in trainer._batches(schedule):
        drawn.append(audio)
        trainer.step += 1
        if trainer.step == 35:
            break
    for step in (3, 33):
        trainer.step = step
        audio, lengths, texts = next(trainer._batches(schedule))
        assert torch.equal(audio, drawn[step])
        assert (audio.shape[0], len(lengths), len(texts)) == (BATCH, BATCH, BATCH)


@pytest.mark.skipif(not (which("espeak-ng") and which("flite")), reason="needs espeak-ng and flite")
def test_speech_is_trimmed_and_written_once(tmp_path: Path) -> None:
    lines = script("train")[:2]
    index = _write_shard(tmp_path, 0, lines)
    before = index.stat().st_mtime_ns
    assert _write_shard(tmp_path, 0, lines).stat().st_mtime_ns == before
    pool = Pool.read(tmp_path)
    assert pool.texts == [line.text for line in lines]
    assert 0.45 < np.abs(pool.samples(0)).max() <= 0.51
    assert pool.lengths[0] / RATE > 0.5
