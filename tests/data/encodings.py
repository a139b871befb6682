"""Encoded audio of every kind that is read, and what programs do to such files."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import soundfile

from src.data.containers.ogg import _checksum

FORMATS: dict[str, tuple[str, str | None, str | None]] = {
    "wav": ("WAV", "PCM_16", None),
    "wav-float": ("WAV", "FLOAT", None),
    "wav-24": ("WAVEX", "PCM_24", None),
    "wav-ulaw": ("WAV", "ULAW", None),
    "wav-adpcm": ("WAV", "MS_ADPCM", None),
    "rifx": ("WAV", "PCM_16", "BIG"),
    "rf64": ("RF64", "PCM_16", None),
    "w64": ("W64", "PCM_16", None),
    "aiff": ("AIFF", "PCM_16", None),
    "aiff-float": ("AIFF", "FLOAT", None),
    "au": ("AU", "PCM_16", None),
    "au-little": ("AU", "PCM_16", "LITTLE"),
    "caf": ("CAF", "PCM_16", None),
    "alac": ("CAF", "ALAC_16", None),
    "caf-ulaw": ("CAF", "ULAW", None),
    "nist": ("NIST", "PCM_16", None),
    "nist-ulaw": ("NIST", "ULAW", None),
    "nist-alaw": ("NIST", "ALAW", None),
    "flac": ("FLAC", "PCM_16", None),
    "vorbis": ("OGG", "VORBIS", None),
    "opus": ("OGG", "OPUS", None),
    "mp3": ("MP3", None, None),
}


def speechlike(samples: int = 12_001, channels: int = 1) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A tone that glides, with noise: no two parts of it are equal. ``[samples, channels]``, 16 bits."""
    time = np.arange(samples) / 16_000
    sound = 0.3 * np.sin(2 * np.pi * (200 + 100 * np.sin(3 * time)) * time)
    sound += 0.05 * np.random.default_rng(0).standard_normal(samples)
    return np.repeat(np.rint(sound * 32_767).astype(np.int16)[:, None], channels, axis=1)


def encoded(kind: str, samples: Any = None, rate: int = 16_000) -> bytes:
    """A file of a kind in :data:`FORMATS`."""
    file, subtype, endian = FORMATS[kind]
    stream = io.BytesIO()
    sound = speechlike() if samples is None else samples
    if subtype == "FLOAT" and sound.dtype == np.int16:
        sound = sound / 32_768
    soundfile.write(stream, sound, rate, format=file, subtype=subtype, endian=endian)
    return stream.getvalue()


def at(data: bytes, place: int, new: bytes) -> bytes:
    """``data`` with the bytes from ``place`` on replaced."""
    return data[:place] + new + data[place + len(new) :]


def chunk(name: bytes, content: bytes, fill: bool = True) -> bytes:
    """A chunk of a wav file, with or without the byte that fills it up."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2 * fill)


def id3v2(size: int = 300) -> bytes:
    """A tag as it stands before mp3 files."""
    return b"ID3\x03\0\0" + bytes([0, 0, size >> 7, size & 0x7F]) + bytes(size)


ID3V1 = b"TAG" + b"title".ljust(125, b"\0")


def pages(ogg: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    found = ogg.split(b"OggS")[1:]
    return [b"OggS" + page for page in found]


def page(data: bytes) -> bytes:
    """An Ogg page with its checksum."""
    return at(data, 22, struct.pack("<I", _checksum(at(data, 22, bytes(4)))))
