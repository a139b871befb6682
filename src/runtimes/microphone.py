"""What is said into the default microphone, through sounddevice, which is an extra to install."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr

from src.data.audio import SAMPLING_RATE, Waveform
from src.errors import UserError

_FIELD = "--microphone"


def require_microphone() -> Any:
    """The module sounddevice.

    Raises:
        UserError: it, the library that it needs, or any microphone is not there.
    """
    try:
        import sounddevice
    except ImportError:
        install = "Install it with `pip install -e '.[microphone]'`"
        raise UserError(_FIELD, "it needs the package sounddevice", install) from None
    except OSError as error:
        install = "Install PortAudio, e.g. `apt install libportaudio2`"
        raise UserError(_FIELD, f"sounddevice cannot be loaded ({error})", install) from None
    try:
        sounddevice.query_devices(kind="input")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(_FIELD, f"there is no microphone ({error})", "Plug one in, or name files") from None
    return sounddevice


def record(sounddevice: Any) -> Waveform:
    """Float32 ``[samples]``, mono, 16 kHz, from now until a line is entered on the terminal.

    Raises:
        EOFError: the input ends.
        UserError: the microphone cannot be opened.
    """
    rate = int(sounddevice.query_devices(kind="input")["default_samplerate"])
    blocks = [np.zeros(0, np.float32)]
    try:
        with sounddevice.InputStream(
            samplerate=rate, channels=1, dtype="float32", callback=lambda block, *_: blocks.append(block[:, 0].copy())
        ):
            input()
    except sounddevice.PortAudioError as error:
        raise UserError(_FIELD, f"the microphone cannot be opened ({error})", "Free or choose another one") from None
    heard: Waveform = np.concatenate(blocks)
    return heard if rate == SAMPLING_RATE else soxr.resample(heard, rate, SAMPLING_RATE)
