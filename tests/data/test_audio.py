"""Whatever the file's rate, channels and format, the model gets the same sound at 16 kHz."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from src.data.audio import AudioError, decode, inspect
from tests.data.clips import tone

FORMATS = ["WAV", "FLAC", "OGG", "MP3"]


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_duration_and_pitch_survive(file: str, rate: int, channels: int) -> None:
    waveform = decode(tone(1.0, 440.0, rate, channels, file))
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert waveform.flags.c_contiguous
    assert len(waveform) == pytest.approx(16_000, abs=160)
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 16_000))
    assert np.argmax(spectrum) == pytest.approx(440, abs=1)


def test_mono_at_16_khz_is_returned_sample_for_sample() -> None:
    samples = (np.random.default_rng(0).uniform(-1, 1, 999) * 32767).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, format="FLAC")
    np.testing.assert_array_equal(decode(stream.getvalue()), samples.astype(np.float32) / 32768)


def test_stereo_is_averaged() -> None:
    one, two = decode(tone(0.1, 440)), decode(tone(0.1, 440, channels=2))
    np.testing.assert_allclose(two, one / 2, atol=1e-4)


def test_resampling_keeps_level_and_removes_what_16_khz_cannot_hold() -> None:
    kept, removed = decode(tone(1.0, 1_000, 44_100)), decode(tone(1.0, 12_000, 44_100))
    middle = slice(1_000, -1_000)
    assert np.abs(kept[middle]).max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(removed[middle]).max() < 1e-3


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.0007, 0.1, 0.7777])
def test_inspection_tells_the_exact_length_and_finds_nothing_wrong(file: str, rate: int, seconds: float) -> None:
    encoded = tone(seconds, 300, rate, file=file)
    found = inspect(encoded)
    assert found.samples == len(decode(encoded))
    assert found.problem is None


def pcm(samples: object, rate: int = 16_000, file: str = "WAV", subtype: str = "FLOAT") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.asarray(samples, np.float32), rate, format=file, subtype=subtype)
    return stream.getvalue()


FLAC = tone(1.0, 440, file="FLAC")
BAD = {
    "missing": None,
    "empty": b"",
    "corrupt": b"no header of any kind",
    "truncated": tone(1.0, 440)[:9_000],
    "zero-length": tone(0, 440),
    "not-finite": pcm([0.1, float("nan"), 0.2] * 50),
    "silent": pcm([5e-5] * 500),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_with_a_clip_is_named(kind: str) -> None:
    found = inspect(BAD[kind])
    assert found.problem is not None
    assert found.problem.partition(":")[0] == kind
    assert " at 0x" not in found.problem


def test_infinite_samples_and_bytes_damaged_behind_the_header_are_found() -> None:
    assert str(inspect(pcm([0.1, float("inf")] * 50)).problem).startswith("not-finite")
    half = FLAC[: len(FLAC) // 2]
    for damaged in (half, half + bytes(len(half))):
        assert str(inspect(damaged).problem).startswith("truncated")
    flipped = FLAC[: len(FLAC) // 2] + b"damage" + FLAC[len(FLAC) // 2 + 6 :]
    assert str(inspect(flipped).problem).startswith("corrupt")


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_file_from_a_pipe_does_not_know_its_size(size: int) -> None:
    encoded = tone(0.1, 440)
    assert inspect(encoded[:4] + size.to_bytes(4, "little") + encoded[8:]).problem is None


def test_quiet_is_not_silent() -> None:
    assert inspect(pcm([2e-4, -2e-4] * 500)).problem is None


def test_the_hash_is_of_the_sound_and_not_of_the_file() -> None:
    samples = np.random.default_rng(0).integers(-20_000, 20_000, 3_000) / 32_768
    wav, flac = pcm(samples, subtype="PCM_16"), pcm(samples, file="FLAC", subtype="PCM_16")
    stereo = pcm(np.stack([samples, samples], axis=1))
    assert len({inspect(encoded).sha256 for encoded in (wav, flac, stereo)}) == 1
    others = [pcm(samples[::-1]), pcm(samples[:-1]), pcm(samples, rate=8_000), b"broken", b"damaged"]
    assert len({inspect(encoded).sha256 for encoded in [wav, *others]}) == len(others) + 1


def test_a_long_file_is_inspected_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = tone(0.5, 440, 44_100, 2)
    whole = inspect(encoded)
    monkeypatch.setattr("src.data.audio._BLOCK", 1_000)
    assert inspect(encoded) == whole


@pytest.mark.parametrize("damaged", [b"", b"not audio", tone(0.1, 440)[:20]])
def test_what_is_not_audio_is_an_error(damaged: bytes) -> None:
    with pytest.raises(AudioError):
        decode(damaged)
