"""Encoded audio bytes to the one waveform format of this project: float32, mono, 16 kHz, nominally in [-1, 1]."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from src.data.cancelling import Cancelling
from src.data.containers import AudioError, parts

__all__ = ["SAMPLING_RATE", "SILENCE", "AudioError", "Sound", "Waveform", "decode", "encode", "inspect"]

SAMPLING_RATE: Final = 16_000
SILENCE: Final = 1e-4  # -80 dBFS, three steps of a 16-bit file: below it there is nothing to recognise
PEAK: Final = 2.0  # what lossy codecs and mixes reach beyond 1 stays below; 16-bit numbers that are no silence do not
RATES: Final = (4_000, 384_000)  # Hz: below there is no speech, above no recorder
LONGEST: Final = 1 << 29  # samples of one clip, before resampling or after: 9 hours at 16 kHz, 2 GiB
_BLOCK: Final = 1 << 20  # samples inspected at a time, so that an hour-long file costs no more memory than a minute
_UNSUPPORTED: Final = (1, 4)  # errors of libsndfile: a format, an encoding that it does not know

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """What :func:`inspect` found.

    Attributes:
        samples: length of what :func:`decode` returns.
        sha256: of the sampling rate and the mono signal rounded to 16 bits, so that it is the same for lossless
            encodings of one recording; of the bytes where they cannot be decoded.
        problem: why the clip is of no use, ``"kind: detail"``; None where nothing is wrong. Kinds: missing, empty,
            unsupported, corrupt, truncated, rate, over-long, zero-length, not-finite, out-of-range, silent, cancelling.
    """

    samples: int
    sha256: str
    problem: str | None


def inspect(encoded: bytes | None) -> Sound:
    """Decodes a clip block by block and says what is wrong with it."""
    if not encoded:
        return Sound(0, "", "missing: the row holds no audio bytes" if encoded is None else "empty: it has no bytes")
    try:
        return _measure(encoded)
    except AudioError as error:
        return Sound(0, hashlib.sha256(encoded).hexdigest(), str(error))


def _measure(encoded: bytes) -> Sound:
    reader = _BlockReader(encoded)
    signal, cancelling = hashlib.sha256(), Cancelling()
    low, high, peak, finite = float("inf"), -float("inf"), 0.0, True  # the first two of the mean of the channels
    for block in reader:
        if not reader.frames:
            signal.update(f"{reader.rate} Hz".encode())
        mono = _mono(block)
        finite = finite and bool(np.isfinite(block).all())
        low, high = min(low, float(mono.min())), max(high, float(mono.max()))
        peak = max(peak, float(np.abs(block).max()))
        cancelling.add(block, mono, reader.rate)
        signal.update(np.rint(np.clip(np.nan_to_num(mono), -8, 8) * 32_768).astype("<i4").tobytes())
    samples = _resampled_length(reader.frames, reader.rate)
    problem = None
    if not reader.frames:
        problem = "zero-length: it holds no samples"
    elif not samples:
        problem = f"zero-length: {reader.frames} samples at {reader.rate} Hz are none at {SAMPLING_RATE} Hz"
    elif not finite:
        problem = "not-finite: it holds NaN or infinite samples"
    elif peak > PEAK:
        problem = f"out-of-range: its peak {peak:.6g} is not in [-1, 1]: {_scale(peak)}"
    elif peak >= SILENCE and (lost := cancelling.lost):
        lost_where = f"{lost:.0%} of its sound is lost in the mean of its channels, which are of opposite phase"
        problem = f"cancelling: {lost_where}: keep one of them"
    elif (high - low) / 2 < SILENCE or peak < SILENCE:
        problem = f"silent: no sample is above {SILENCE:g} of full scale, counted from the middle of its range"
    return Sound(samples, signal.hexdigest(), problem)


def _scale(peak: float) -> str:
    """What to do about samples up to ``peak``."""
    for bits in (16, 24, 32):
        if peak <= 1 << bits - 1:
            return f"divide it by {1 << bits - 1} if these are {bits}-bit numbers, or store them as such"
    return "scale it"


def decode(encoded: bytes) -> Waveform:
    """Waveform [samples], C-contiguous: channels averaged, resampled with soxr at its high quality.

    Raises:
        AudioError: the bytes cannot be decoded, or not all of what they announce.
    """
    reader = _BlockReader(encoded)
    blocks = [_mono(block) for block in reader]
    mono = blocks[0] if len(blocks) == 1 else np.concatenate([*blocks, np.zeros(0, np.float32)])
    if len(mono) and reader.rate != SAMPLING_RATE:
        mono = soxr.resample(mono, reader.rate, SAMPLING_RATE)
    return np.ascontiguousarray(mono, dtype=np.float32)


def encode(waveform: Waveform, file: Literal["WAV", "FLAC"], subtype: Literal["FLOAT", "PCM_16"]) -> bytes:
    """A waveform ``[samples]`` at 16 kHz as a file."""
    with _file() as stored:
        soundfile.write(stored.fileno(), waveform, SAMPLING_RATE, format=file, subtype=subtype, closefd=False)
        stored.seek(0)
        return stored.read()


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Closed by ``with``, so that it needs no finalizer; what a signal raises in one written in Python is lost."""

    __del__ = object.__hash__


class _BlockReader:
    """Iterates over blocks ``[frames, channels]`` of all recordings in a file.

    Attributes:
        frames: how many were in the blocks before this one.
        rate: sampling rate in Hz, known with the first block.
    """

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self.frames, self.rate = 0, SAMPLING_RATE

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Raises :class:`AudioError` where less can be decoded than is announced, and for what is out of all range."""
        for part in parts(self._encoded):
            if part.frames == 0:
                continue
            with _file() as stored:
                stored.writelines(part.pieces)
                stored.seek(0)
                try:
                    with _SoundFile(stored.fileno(), closefd=False) as file:
                        yield from self._blocks(file, part.frames)
                except soundfile.LibsndfileError as error:
                    kind = "unsupported" if error.code in _UNSUPPORTED else "corrupt"
                    raise AudioError(kind, str(error.error_string).rstrip(".")) from error

    def _blocks(self, file: soundfile.SoundFile, announced: int | None) -> Iterator[NDArray[np.float32]]:
        frames = file.frames if announced is None else announced
        self._check(file.samplerate, frames)
        window = max(file.samplerate // 2, 1)
        size = max(1, _BLOCK // (window * file.channels)) * window  # whole windows, for `Cancelling`
        left = frames
        while left and len(block := file.read(min(left, size), dtype="float32", always_2d=True)):
            yield block
            self.frames += len(block)
            left -= len(block)
        if left:
            raise AudioError("truncated", f"it announces {frames} samples, of which {frames - left} can be decoded")

    def _check(self, rate: int, frames: int) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise AudioError("rate", f"its sampling rate of {rate} Hz is not between {RATES[0]} and {RATES[1]} Hz")
        if self.frames and rate != self.rate:
            raise AudioError("rate", f"it joins recordings of {self.rate} and {rate} Hz: resample one of them")
        longer = max(self.frames + frames, _resampled_length(self.frames + frames, rate))
        if longer > LONGEST:
            raise AudioError("over-long", f"it makes {longer} samples, more than the {LONGEST} that fit: cut it")
        self.rate = rate


def _file() -> IO[bytes]:
    """A file without a name; in memory where the system can.

    libsndfile works on its descriptor and not through Python: what a signal raises in one of its callbacks is printed,
    and the sound ends there without an error.
    """
    return os.fdopen(os.memfd_create("audio"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def _mono(channels: NDArray[np.float32]) -> Waveform:
    """Mean of the channels ``[frames, channels]``."""
    with np.errstate(invalid="ignore", over="ignore"):
        return channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)


def _resampled_length(frames: int, rate: int) -> int:
    """Length soxr gives ``frames`` samples at ``rate`` after resampling to 16 kHz: rounded to the nearest sample."""
    return frames if rate == SAMPLING_RATE else int(frames * SAMPLING_RATE / rate + 0.5)
