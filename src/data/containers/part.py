"""What the parsers of containers give: one recording that was found whole, or the reason why it is of no use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Buffer = bytes | memoryview


_ANOTHER: Final = re.compile(  # how recordings begin, in more bytes than chance makes
    rb"(RIFF|RIFX|RF64|BW64)....WAVEfmt |FORM....AIF[FC]|riff\x2e\x91\xcf\x11|caff\x00\x01\x00\x00desc|NIST_1A\n"
    rb"|OggS\x00\x02|fLaC[\x00\x80]\x00\x00\x22|\.snd\x00\x00\x00[\x18-\x80]",
    re.DOTALL,
)


class AudioError(ValueError):
    """Encoded audio that is not to be used; its text is ``"kind: detail"`` as in :class:`src.data.audio.Sound`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)

    def __str__(self) -> str:
        return "{}: {}".format(*self.args)


@dataclass(frozen=True)
class Part:
    """One recording of a file, made anew for the decoder from what was checked.

    Its sizes are those of the sound that is there, whatever the file's header said; chunks that are no sound are gone.

    Attributes:
        pieces: the file that the decoder is given, in order.
        frames: samples of each channel it holds; None where only decoding tells.
    """

    pieces: tuple[Buffer, ...]
    frames: int | None


def announced(at: int, needed: int, found: int, what: str, unit: str = "bytes") -> None:
    """Raises :class:`AudioError` where ``what``, of ``needed`` bytes and beginning at ``at``, ends behind ``found``."""
    if at + needed > found:
        detail = f"its {what} announces {needed} {unit}, of which {max(found - at, 0)} are there"
        raise AudioError("truncated", detail)


def streamed(data: bytes, begin: int, width: int) -> int:
    """Bytes of sound whose length is not announced, in frames of ``width`` bytes (0: not known).

    It goes on to the header of another recording or to the file's end.

    Raises:
        AudioError: it ends within a frame.
    """
    following = _ANOTHER.search(data, begin)
    size = (following.start() if following else len(data)) - begin
    if width and size % width:
        raise AudioError("truncated", f"its last {size % width} bytes are a part of a sample of {width} bytes")
    return size


def corrupt(detail: str) -> AudioError:
    """The error of bytes that contradict their format."""
    return AudioError("corrupt", detail)
