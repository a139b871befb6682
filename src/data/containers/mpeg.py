"""MPEG audio (mp3 and layers I, II): frames one after another, counted here.

A Xing, Info or VBRI frame at the beginning announces how many follow. The decoder believes it, and guesses where there
is none; so it is given one with the true count.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from src.data.containers.part import Part, announced

_BITRATES: Final = {  # kbit/s by (MPEG 1, layer); the first number, 0, stands for "free"
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = (44_100, 48_000, 32_000)
_DELAY: Final = 529  # samples that the decoder takes off where it is told the count: the filters' own delay
_INSERTED: Final = 9  # index of the bitrate of a frame made here, which leaves room enough


@dataclass(frozen=True)
class _Frame:
    """What a frame's header says: ``kind`` is equal for frames of one recording, ``length`` in bytes."""

    kind: tuple[bool, int, int, bool]
    length: int
    samples: int

    @property
    def information(self) -> int:
        """Bytes before what a Xing or Info frame says."""
        mpeg1, _, _, mono = self.kind
        return 4 + {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[mpeg1, mono]


def begins(data: bytes, at: int) -> bool:
    """Whether a frame begins at ``at``, and another one, or nothing, behind it."""
    first = _frame(data, at)
    if first is None:
        return False
    behind = at + first.length
    second = _frame(data, behind)
    return len(data) - behind < 4 or data[behind : behind + 3] in (b"TAG", b"ID3", b"APE") or second is not None


def parse(data: bytes, at: int) -> tuple[Part, int]:
    """The frames that begin at ``at`` and where they end: where something else comes, or another recording.

    Raises:
        AudioError: the last frame is cut off, or fewer frames are there than announced.
    """
    first = _frame(data, at)
    assert first is not None
    told = _told(data, at, first)
    begin = position = at if told is None else at + first.length
    count = 0
    while (frame := _frame(data, position)) is not None and frame.kind == first.kind:
        if position > begin and _told(data, position, frame) is not None:
            break
        announced(position, frame.length, len(data), "last frame")
        position += frame.length
        count += 1
    if 0 < len(data) - position < 4 and data[position] == 0xFF:
        announced(position, 4, len(data), "last frame")
    if told is not None:
        announced(0, told.frames - told.spare, count, "Xing or VBRI header", "frames")
        if told.spare == 0 and told.frames == count:
            return Part((memoryview(data)[at:position],), None), position
    layer = first.kind[1]
    inserted = () if layer != 3 else (_information(data[begin : begin + 4] or data[at : at + 4], first, count),)
    samples = count * first.samples - (_DELAY if layer == 3 else 0)
    return Part((*inserted, memoryview(data)[begin:position]), max(samples, 0)), position


@dataclass(frozen=True)
class _Told:
    """What an information frame announces, and by how much it may be too large.

    Some encoders count the information frame too; LAME and ffmpeg, which also tell what is to be cut off at both ends,
    do not.
    """

    frames: int
    spare: int


def _told(data: bytes, at: int, frame: _Frame) -> _Told | None:
    """What the information frame at ``at`` says; None where it is a frame of sound."""
    if frame.kind[1] != 3:
        return None
    inside = data[at : at + frame.length]
    if inside[36:40] == b"VBRI":
        return _Told(int.from_bytes(inside[50:54], "big"), 1)
    place = frame.information + (0 if inside[1] & 1 else 2)
    for start in (place, frame.information):
        if inside[start : start + 4] in (b"Xing", b"Info"):
            flags, frames = struct.unpack(">II", inside[start + 4 : start + 12].ljust(8, b"\0"))
            encoder = inside[start + 120 : start + 124]
            return _Told(frames if flags & 1 else 0, 0 if encoder in (b"LAME", b"Lavf", b"Lavc") else 1)
    return None


def _information(header: bytes, first: _Frame, count: int) -> bytes:
    """An Info frame that announces ``count`` frames like the one with this ``header``."""
    made = bytearray(header)
    made[1] |= 1  # no checksum
    made[2] = (made[2] & 0x0C) | (_INSERTED << 4)
    frame = _frame(bytes(made), 0)
    assert frame is not None
    return (bytes(made).ljust(first.information, b"\0") + struct.pack(">4sII", b"Info", 1, count)).ljust(
        frame.length, b"\0"
    )


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame whose header is at ``at``; None where there is none, or one of free length."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer, bitrate, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    mpeg1 = version == 3
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = 1000 * _BITRATES[mpeg1, layer][bitrate]
    samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    padding = head[2] >> 1 & 1
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    return _Frame((mpeg1, layer, hertz, head[3] >> 6 == 3), length, samples)
