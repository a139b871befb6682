"""What the parsers of containers give: one recording that was found whole, or the reason why it is of no use."""

from __future__ import annotations

from dataclasses import dataclass

Buffer = bytes | memoryview


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


def announced(at: int, needed: int, found: int, what: str) -> None:
    """Raises :class:`AudioError` where ``what``, of ``needed`` bytes and beginning at ``at``, ends behind ``found``."""
    if at + needed > found:
        detail = f"its {what} announces {needed} bytes, of which {max(found - at, 0)} are there"
        raise AudioError("truncated", detail)


def corrupt(detail: str) -> AudioError:
    """The error of bytes that contradict their format."""
    return AudioError("corrupt", detail)
