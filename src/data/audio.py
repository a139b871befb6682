"""Encoded audio bytes to the one waveform format of this project: float32, mono, 16 kHz, nominally in [-1, 1]."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLING_RATE: Final = 16_000

Waveform = NDArray[np.float32]


class AudioError(ValueError):
    """The bytes are not audio that libsndfile can read (wav, flac, ogg, mp3 ...)."""


def count_samples(encoded: bytes) -> int:
    """Samples that :func:`decode` will return, from the file's header alone.

    Raises:
        AudioError: the header cannot be read, or announces no samples.
    """
    try:
        header = soundfile.info(io.BytesIO(encoded))
    except soundfile.LibsndfileError as error:
        raise AudioError(str(error)) from error
    if not header.frames:
        raise AudioError("it holds no samples")
    return _resampled_length(header.frames, header.samplerate)


def decode(encoded: bytes) -> Waveform:
    """Waveform [samples], C-contiguous: channels averaged, resampled with soxr at its high quality.

    Raises:
        AudioError: the bytes cannot be decoded.
    """
    try:
        channels, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(str(error)) from error
    mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if rate != SAMPLING_RATE:
        mono = soxr.resample(mono, rate, SAMPLING_RATE)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _resampled_length(frames: int, rate: int) -> int:
    """Length soxr gives ``frames`` samples at ``rate`` after resampling to 16 kHz: rounded to the nearest sample."""
    return frames if rate == SAMPLING_RATE else int(frames * SAMPLING_RATE / rate + 0.5)
