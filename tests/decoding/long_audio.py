"""Whispers that know times, and audio longer than their window of 2 s."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile

from src.data.audio import SAMPLING_RATE, Waveform
from src.models.whisper.speech import WhisperSpeech
from tests.tiny import tiny_whisper

NO_TIMESTAMPS = 95
POSITIONS = 100  # of the encoder, 0.02 s each


def timed_whisper(seed: int, eos: int = 89, **changes: Any) -> WhisperSpeech:
    """A tiny Whisper with a token for every time from 0.00 to 2.00 s; ids below ``eos`` are text."""
    speech = tiny_whisper(seed, vocab_size=NO_TIMESTAMPS + 1 + POSITIONS + 1, **changes)
    generation = speech.module.generation_config
    generation.no_timestamps_token_id = NO_TIMESTAMPS
    generation.max_length = speech.module.config.max_target_positions
    generation.max_initial_timestamp_index = 50
    generation.is_multilingual = False
    generation.eos_token_id = generation.pad_token_id = speech.eos = eos
    return speech


def modulated(seconds: float, seed: int) -> Waveform:
    """Four tones that come and go."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    tones = [
        random.uniform(0.05, 0.3)
        * np.sin(2 * np.pi * random.uniform(100, 4_000) * time)
        * np.sin(2 * np.pi * random.uniform(0.1, 3) * time)
        for _ in range(4)
    ]
    return np.sum(tones, axis=0).astype(np.float32)


def generated(speech: WhisperSpeech, waveform: Waveform, **arguments: Any) -> list[int]:
    """What transformers' long-form generation writes, one utterance at a time."""
    features = speech.whole_features(waveform).unsqueeze(0)
    tokens: list[int] = speech.module.generate(features, return_timestamps=True, **arguments)[0].tolist()
    return tokens


def encoded(waveform: Waveform) -> bytes:
    """A wav file that holds the very samples."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform, SAMPLING_RATE, format="WAV", subtype="FLOAT")
    return stream.getvalue()
