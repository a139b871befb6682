"""Sound files that a user names, in any format that libsndfile reads, refused by name before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from src.data.audio import AudioError, Waveform, decode, inspect
from src.errors import UserError

_FORMATS = "Give a sound file that libsndfile reads, such as wav, flac, ogg or mp3"


def require_heard(files: Sequence[Path]) -> None:
    """Checks that each is there, can be decoded to its end, and holds sound.

    Raises:
        UserError: one is or does not.
    """
    for file in files:
        if problem := inspect(_bytes(file)).problem:
            raise UserError(str(file), problem, _FORMATS)


def waveform(file: Path) -> Waveform:
    """Float32 ``[samples]``, mono, 16 kHz. Raises UserError: the file is no longer as it was inspected."""
    try:
        return decode(_bytes(file))
    except AudioError as error:
        raise UserError(str(file), str(error), _FORMATS) from None


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(str(file), f"it cannot be read ({error.strerror})", "Name a sound file") from None
