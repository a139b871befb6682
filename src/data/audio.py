"""Encoded audio bytes to the one waveform format of this project: float32, mono, 16 kHz, nominally in [-1, 1]."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLING_RATE: Final = 16_000
SILENCE: Final = 1e-4  # -80 dBFS, three steps of a 16-bit file: below it there is nothing to recognise
_UNKNOWN_SIZE: Final = 0x7FFFF000  # what a wav header that was written before the sound says at least
_BLOCK: Final = 1 << 20  # frames inspected at a time, so that an hour-long file costs no more memory than a minute

Waveform = NDArray[np.float32]


class AudioError(ValueError):
    """The bytes are not audio that libsndfile can read (wav, flac, ogg, mp3 ...)."""


@dataclass(frozen=True)
class Sound:
    """What :func:`inspect` found.

    Attributes:
        samples: length of what :func:`decode` returns.
        sha256: of the sampling rate and the mono signal rounded to 16 bits, so that it is the same for lossless
            encodings of one recording; of the bytes where they cannot be decoded.
        problem: why the clip is of no use, ``"kind: detail"``; None where nothing is wrong. Kinds: missing, empty,
            corrupt, truncated, zero-length, not-finite, silent.
    """

    samples: int
    sha256: str
    problem: str | None


def inspect(encoded: bytes | None) -> Sound:
    """Decodes a clip block by block and says what is wrong with it."""
    if not encoded:
        return Sound(0, "", "missing: the row holds no audio bytes" if encoded is None else "empty: it has no bytes")
    if _cut_short(encoded):
        problem = f"truncated: its header announces more than the {len(encoded)} bytes it has"
        return Sound(0, hashlib.sha256(encoded).hexdigest(), problem)
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            return _measure(file)
    except soundfile.LibsndfileError as error:
        return Sound(0, hashlib.sha256(encoded).hexdigest(), f"corrupt: {_reason(error)}")


def _measure(file: soundfile.SoundFile) -> Sound:
    signal = hashlib.sha256(f"{file.samplerate} Hz".encode())
    frames, peak, finite = 0, 0.0, True
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        mono = _mono(block)
        frames += len(mono)
        finite = finite and bool(np.isfinite(mono).all())
        peak = max(peak, float(np.abs(mono).max()))
        signal.update(np.rint(np.clip(np.nan_to_num(mono), -8, 8) * 32_768).astype("<i4").tobytes())
    problem = None
    if not frames:
        problem = "zero-length: it holds no samples"
    elif not finite:
        problem = "not-finite: it holds NaN or infinite samples"
    elif peak < SILENCE:
        problem = f"silent: no sample is above {SILENCE:g} of full scale"
    return Sound(_resampled_length(frames, file.samplerate), signal.hexdigest(), problem)


def decode(encoded: bytes) -> Waveform:
    """Waveform [samples], C-contiguous: channels averaged, resampled with soxr at its high quality.

    Raises:
        AudioError: the bytes cannot be decoded.
    """
    try:
        channels, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(_reason(error)) from error
    mono = _mono(channels)
    if rate != SAMPLING_RATE:
        mono = soxr.resample(mono, rate, SAMPLING_RATE)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _cut_short(encoded: bytes) -> bool:
    """Whether a wav file ends before its header says: libsndfile would read what there is of it without a word.

    Programs that write to a pipe leave the size at zero or at its largest value; such a header announces nothing.
    """
    size = int.from_bytes(encoded[4:8], "little")
    return encoded[:4] == b"RIFF" and 0 < size < _UNKNOWN_SIZE and size + 8 > len(encoded)


def _mono(channels: NDArray[np.float32]) -> Waveform:
    """Mean of the channels ``[frames, channels]``."""
    return channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)


def _reason(error: soundfile.LibsndfileError) -> str:
    """The library's message without the address of the buffer it read."""
    return str(error.error_string).rstrip(".")


def _resampled_length(frames: int, rate: int) -> int:
    """Length soxr gives ``frames`` samples at ``rate`` after resampling to 16 kHz: rounded to the nearest sample."""
    return frames if rate == SAMPLING_RATE else int(frames * SAMPLING_RATE / rate + 0.5)
