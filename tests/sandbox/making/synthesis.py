"""Text to speech: a sentence and a delivery give samples at 16 kHz."""

from __future__ import annotations

import io
import subprocess
import tempfile
from typing import Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from tests.sandbox.making.voices import Delivery

RATE: Final = 16_000
MAX_SECONDS: Final = 5.5
PEAK: Final = 0.5
_FLITE_NATURAL_SPEED: Final = 165  # words a minute that flite speaks at a duration stretch of 1
_EDGE: Final = int(0.06 * RATE)  # silence kept before and after the speech, samples
_SILENCE: Final = 0.01  # fraction of the peak under which a sample counts as silence

Samples = NDArray[np.float32]


def speak(text: str, delivery: Delivery) -> Samples:
    """Mono float32 samples (n,), peak 0.5, with 60 ms of silence at most before and after the speech."""
    wave = _espeak(text, delivery) if delivery.voice.engine == "espeak-ng" else _flite(text, delivery)
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    loud = np.flatnonzero(np.abs(samples) > _SILENCE * np.abs(samples).max())
    samples = samples[max(0, loud[0] - _EDGE) : loud[-1] + _EDGE]
    return np.asarray(samples * (PEAK / np.abs(samples).max()), dtype=np.float32)


def _espeak(text: str, delivery: Delivery) -> bytes:
    """A WAV file as espeak-ng writes it."""
    command = ["espeak-ng", "-v", delivery.voice.name, "-s", str(delivery.speed), "-p", str(delivery.pitch), "--stdout"]
    return subprocess.run([*command, text], check=True, capture_output=True).stdout


def _flite(text: str, delivery: Delivery) -> bytes:
    """A WAV file as flite writes it; flite has no pitch that all its voices obey, so only the speed varies."""
    stretch = _FLITE_NATURAL_SPEED / delivery.speed
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", delivery.voice.name, "--setf", f"duration_stretch={stretch:.3f}"]
        subprocess.run([*command, "-t", text, "-o", file.name], check=True, capture_output=True)
        return file.read()
