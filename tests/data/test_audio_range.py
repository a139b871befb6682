"""Sound that can be decoded and is of no use all the same, and decoding that is interrupted."""

from __future__ import annotations

import io
import signal
import struct
import time

import numpy as np
import pytest
import soundfile

from src.data.audio import AudioError, decode, inspect
from src.data.utterance import Utterance
from src.errors import UserError
from tests.data.clips import tone
from tests.data.encodings import at, encoded, speechlike

SPEECH = speechlike()[:, 0] / 32_768
NOISE = np.random.default_rng(3).standard_normal((2, len(SPEECH)))
QUIET = 0.003 * NOISE


def kind_of(samples: object, rate: int = 16_000, file: str = "wav-float") -> str | None:
    problem = inspect(encoded(file, np.asarray(samples), rate)).problem
    return None if problem is None else problem.partition(":")[0]


@pytest.mark.parametrize("scale", [128, 32_768, 1 << 23, 1 << 31, 1e30])
def test_floating_point_samples_of_another_scale_are_refused(scale: float) -> None:
    assert kind_of(SPEECH * scale) == "out-of-range"
    assert kind_of(np.stack([SPEECH, SPEECH * scale], axis=1)) == "out-of-range"


def test_the_peak_and_what_to_do_about_it_are_said() -> None:
    found = inspect(encoded("wav-float", np.array([0.0, 15_257.0] * 99))).problem
    assert found is not None
    assert "peak 15257 is not in [-1, 1]" in found
    assert "divide it by 32768" in found


@pytest.mark.parametrize("peak", [1.0, 1.2, 1.9])
def test_what_codecs_and_mixes_overshoot_is_read(peak: float) -> None:
    assert kind_of(SPEECH / np.abs(SPEECH).max() * peak) is None


OPPOSITE = {
    "opposite": [SPEECH, -SPEECH],
    "opposite and quieter": [SPEECH, -0.7 * SPEECH],
    "opposite with noise": [SPEECH + QUIET[0], -SPEECH + QUIET[1]],
    "opposite in the second half": [SPEECH, np.where(np.arange(len(SPEECH)) < 6_000, SPEECH, -SPEECH)],
    "two pairs": [SPEECH, -SPEECH, SPEECH, -SPEECH],
}
AGREEING = {
    "equal": [SPEECH, SPEECH],
    "one is silent": [SPEECH, 0 * SPEECH],
    "one is late": [SPEECH, np.roll(SPEECH, 40)],
    "two speakers": [SPEECH, np.roll(SPEECH[::-1], 999)],
    "noise": list(0.1 * NOISE),
    "one of four is opposite": [SPEECH, SPEECH, SPEECH, -SPEECH],
}


@pytest.mark.parametrize("file", ["wav-float", "flac", "vorbis"])
@pytest.mark.parametrize("case", [*OPPOSITE, *AGREEING])
def test_channels_that_cancel_each_other_are_refused(case: str, file: str) -> None:
    channels = np.stack({**OPPOSITE, **AGREEING}[case], axis=1)
    assert kind_of(channels, file=file) == ("cancelling" if case in OPPOSITE else None)


def test_a_constant_is_silent() -> None:
    assert kind_of(np.full(999, 0.5)) == "silent"
    assert kind_of(np.full((999, 2), -1.0)) == "silent"
    assert kind_of(np.tile([[1e-5, -1e-5]], (999, 1))) == "silent"


@pytest.mark.parametrize("rate", [1, 100, 3_999, 384_001, 2_000_000_000])
def test_a_sampling_rate_that_no_recorder_has_is_refused_before_anything_is_resampled(rate: int) -> None:
    """At 1 Hz a file of 32 kB would be resampled to 16 000 times its length."""
    data = at(tone(1.0, 440), 24, struct.pack("<II", rate, rate * 2 & 0xFFFFFFFF))
    assert str(inspect(data).problem).startswith(f"rate: its sampling rate of {rate} Hz is not between 4000 and")
    with pytest.raises(AudioError, match=r"^rate"):
        decode(data)


def test_more_than_fits_in_memory_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.data.audio.LONGEST", 30_000)
    for data in (tone(2.0, 440), tone(1.0, 440) * 2, tone(1.0, 440, 7_000) * 2):  # resampling makes the last one longer
        with pytest.raises(AudioError, match=r"^over-long"):
            decode(data)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 12_345, 15_999, 22_050, 44_056, 44_100, 47_250, 48_000, 96_000])
def test_the_length_after_resampling_is_what_inspection_says(rate: int) -> None:
    for samples in (1, 2, 3, 5, 7, 63, 64, 101, 441, 4_411):
        found = inspect(encoded("wav-float", np.tile([0.5, -0.5], samples)[:samples], rate))
        assert found.samples == len(decode(encoded("wav-float", np.full(samples, 0.5), rate)))
        assert (found.samples == 0) == str(found.problem).startswith("zero-length")


def test_a_clip_that_changed_after_its_inspection_is_an_error() -> None:
    clip = Utterance("one", "text", samples=16_001, audio=tone(1.0, 440))
    with pytest.raises(UserError, match=r"'one' .*16000 samples, not 16001"):
        clip.waveform()


class Interrupt(BaseException):
    """As KeyboardInterrupt, or the SystemExit of a handler."""


@pytest.mark.parametrize("file", ["FLAC", "OGG"])
def test_a_signal_while_decoding_is_neither_lost_nor_does_it_shorten_the_clip(file: str) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(0).uniform(-0.5, 0.5, 80_000), 16_000, format=file)
    whole = decode(stream.getvalue())
    begin = time.perf_counter()
    decode(stream.getvalue())
    took = time.perf_counter() - begin
    handled = raised = 0

    def interrupt(*_: object) -> None:
        nonlocal handled
        handled += 1
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in np.linspace(0.02, 0.9, 100) * took:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                decoded = decode(stream.getvalue())
                signal.setitimer(signal.ITIMER_REAL, 0)
                np.testing.assert_array_equal(decoded, whole)
            except Interrupt:
                raised += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert raised == handled > 20
