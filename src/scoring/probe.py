"""Hallucination probe: words that a recogniser writes where nobody speaks.

Silence and noise are decoded as the test set is. Barański et al., "Investigation of Whisper ASR hallucinations induced
by non-speech audio" (arXiv 2501.11378), probe with recorded sounds; these are synthetic, so that they need no data and
are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from src.data.audio import SAMPLING_RATE, Waveform, encode
from src.data.transcripts import Transcript
from src.data.utterance import Utterance
from src.scoring.failure_modes import loops
from src.text.normalizers import Rules

SECONDS: Final = (1.0, 2.0, 3.0, 5.0)  # within any model's window
LEVELS: Final = (-20.0, -40.0, -60.0)  # dBFS, RMS: loud, a quiet room, barely there

_SYLLABLES: Final = 4.0  # Hz, the rate at which speech rises and falls (Houtgast and Steeneken 1985)


@dataclass(frozen=True)
class Hallucinations:
    """What was written for clips without speech; words after normalisation, characters of languages without spaces."""

    clips: Annotated[int, "clips without speech"]
    seconds: Annotated[float, "of them"]
    words: Annotated[int, "words written for them"]
    clips_with_words: Annotated[float, "clips with any, %"]
    words_per_minute: Annotated[float, "words a minute of audio"]
    loops: Annotated[int, "transcripts in a repetition loop"]
    capped: Annotated[int, "transcripts cut off at the limit on tokens"]


def clips(n: int, seed: int) -> list[Utterance]:
    """``n`` clips without speech, the same for the same seed; fewer are the first of more.

    Silence, white, pink and modulated noise take turns; every kind walks through all pairs of :data:`SECONDS` and
    :data:`LEVELS` (48 clips hold each once). Ids are ``kind-number-seconds-level``.
    """
    return [_clip(number, seed) for number in range(n)]


def kind(transcript: Transcript) -> str:
    return transcript.id.partition("-")[0]


def hallucinations(transcripts: Sequence[Transcript], rules: Rules) -> Hallucinations:
    """Counts of at least one transcript."""
    counts = [len(rules.words(item.hypothesis)) for item in transcripts]
    seconds = sum(item.seconds for item in transcripts)
    return Hallucinations(
        clips=len(counts),
        seconds=seconds,
        words=sum(counts),
        clips_with_words=100.0 * sum(map(bool, counts)) / len(counts),
        words_per_minute=60.0 * sum(counts) / seconds,
        loops=sum(loops(item.hypothesis, rules) for item in transcripts),
        capped=sum(item.capped for item in transcripts),
    )


def _clip(number: int, seed: int) -> Utterance:
    turn, which = divmod(number, len(_SOUNDS))
    name, sound = list(_SOUNDS.items())[which]
    seconds, level = SECONDS[turn % len(SECONDS)], LEVELS[turn % len(LEVELS)]
    random = np.random.default_rng((seed, number))
    wave = sound(random, round(seconds * SAMPLING_RATE))
    if not wave.any():
        return _utterance(f"{name}-{number:03d}-{seconds:g}s", wave)
    return _utterance(f"{name}-{number:03d}-{seconds:g}s-{level:g}dB", _at_level(wave, level))


def _utterance(name: str, waveform: Waveform) -> Utterance:
    """A waveform in memory as the data sets' utterances are: encoded."""
    return Utterance(id=name, text="", samples=len(waveform), audio=encode(waveform, "WAV", "FLOAT"))


def _at_level(wave: Waveform, level: float) -> Waveform:
    """The wave at an RMS of ``level`` dBFS, clipped to [-1, 1]."""
    rms = np.sqrt(np.mean(np.square(wave)))
    scaled: Waveform = (wave * (10 ** (level / 20) / rms)).astype(np.float32)
    return scaled.clip(-1, 1)


def _silence(_: np.random.Generator, samples: int) -> Waveform:
    return np.zeros(samples, dtype=np.float32)


def _white(random: np.random.Generator, samples: int) -> Waveform:
    return random.standard_normal(samples).astype(np.float32)


def _pink(random: np.random.Generator, samples: int) -> Waveform:
    """Power falls with 1 / frequency, above 20 Hz."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLING_RATE)
    pink = np.where(frequencies < 20, 0, spectrum / np.sqrt(np.maximum(frequencies, 20)))
    return np.fft.irfft(pink, samples).astype(np.float32)


def _modulated(random: np.random.Generator, samples: int) -> Waveform:
    """Pink noise that rises and falls at the rate of syllables, as babble does, without a word in it."""
    times = np.arange(samples) / SAMPLING_RATE
    envelope = 0.5 - 0.5 * np.cos(2 * np.pi * (_SYLLABLES * times + random.random()))
    return (_pink(random, samples) * envelope).astype(np.float32)


_SOUNDS: Final[dict[str, Callable[[np.random.Generator, int], Waveform]]] = {
    "silence": _silence,
    "white": _white,
    "pink": _pink,
    "modulated": _modulated,
}
