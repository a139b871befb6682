"""Whatever the file's rate, channels and format, the model gets the same sound at 16 kHz."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from src.data.audio import AudioError, count_samples, decode
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
def test_the_header_tells_the_exact_length(file: str, rate: int, seconds: float) -> None:
    encoded = tone(seconds, 300, rate, file=file)
    assert count_samples(encoded) == len(decode(encoded))


@pytest.mark.parametrize("damaged", [b"", b"not audio", tone(0.1, 440)[:20]])
def test_what_is_not_audio_is_an_error(damaged: bytes) -> None:
    with pytest.raises(AudioError):
        count_samples(damaged)
    with pytest.raises(AudioError):
        decode(damaged)


def test_a_file_without_samples_is_an_error() -> None:
    with pytest.raises(AudioError, match="no samples"):
        count_samples(tone(0, 440))
