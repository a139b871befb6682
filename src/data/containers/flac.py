"""FLAC: its header may leave the number of samples open, or be wrong; the last frame tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import Final

from src.data.containers.part import AudioError, Part, announced, corrupt

_HEAD: Final = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the mark, and the header of the first block
_SYNC: Final = re.compile(rb"\xff[\xf8\xf9]")
_LONGEST: Final = 1 << 21  # bytes in which the last frame is sought at most: 65535 samples of 8 channels
_TRIED: Final = 16  # what looks like a frame in them and is none is found less than once
_BEHIND: Final = 4096 + 128  # padding and a tag, which may follow the last frame


@dataclass(frozen=True)
class _Header:
    """The numbers of STREAMINFO that are needed here: samples of a block, bytes of the longest frame, all samples."""

    block: int
    longest: int
    samples: int


def begins(data: bytes, at: int) -> bool:
    return data.startswith(b"fLaC", at)


def parse(data: bytes, at: int) -> tuple[Part, int]:
    """The recording that begins at ``at`` and where it ends: at the file's end, or where another one begins.

    Raises:
        AudioError: it does not end with a whole frame, or with fewer samples than announced.
    """
    announced(at, 42, len(data), "FLAC header")
    if not _HEAD.match(data, at):
        raise corrupt("its FLAC header is not one")
    info = data[at + 8 : at + 42]
    header = _Header(
        int.from_bytes(info[:2], "big"),
        int.from_bytes(info[7:10], "big"),
        int.from_bytes(info[13:18], "big") & (1 << 36) - 1,
    )
    begin = _frames_begin(data, at)
    following = _HEAD.search(data, begin)
    end = following.start() if following else len(data)
    samples = _samples(data, begin, end, header)
    if samples < header.samples:
        announced(0, header.samples, samples, "FLAC header", "samples")
    true = (int.from_bytes(info[13:18], "big") >> 36 << 36 | samples).to_bytes(5, "big")
    head = b"fLaC\x80\x00\x00\x22" + info[:13] + true + info[18:]
    return Part((head, memoryview(data)[begin:end]), samples), end


def _frames_begin(data: bytes, at: int) -> int:
    position, last = at + 4, False
    while not last:
        announced(position, 4, len(data), "FLAC header")
        last = bool(data[position] & 0x80)
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        announced(position, 4 + size, len(data), "FLAC header")
        position += 4 + size
    return position


def _samples(data: bytes, begin: int, end: int, header: _Header) -> int:
    """Number of samples up to the end of the last frame.

    Its checksum has to be right up to the end, or to a tag there; zeros that fill up the file leave it right.
    """
    if begin == end:
        return 0
    start = max(begin, end - min(header.longest or _LONGEST, _LONGEST) - _BEHIND)
    stop = end - 128 if data[end - 128 : end - 125] == b"TAG" else end
    places = (found.start() for found in reversed(list(_SYNC.finditer(data, start, stop))))
    frames = ((at, samples) for at in places if (samples := _frame_end(data[at : at + 20], header.block)) is not None)
    for at, samples in islice(frames, _TRIED):
        if _crc16(data[at:stop]) == 0:
            return samples
    raise AudioError("truncated", "its FLAC stream does not end with a whole frame")


def _frame_end(head: bytes, block: int) -> int | None:
    """The samples of a stream up to the end of the frame with this header; None where it is no header."""
    if len(head) < 6 or not head[2] >> 4 or head[2] & 15 == 15 or head[3] & 1:
        return None
    extra = 0 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length() - 1
    if extra < 0 or (head[4] >= 0x80 and not 1 <= extra <= 6):
        return None
    number = head[4] & (0x7F if not extra else (1 << (6 - extra)) - 1)
    for byte in head[5 : 5 + extra]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 0x3F
    place, code = 5 + extra, head[2] >> 4
    sizes = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 256 << n - 8 for n in range(8, 16)}}
    if code in (6, 7):
        size = int.from_bytes(head[place : place + code - 5], "big") + 1
        place += code - 5
    else:
        size = sizes[code]
    place += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    return (number if head[1] & 1 else number * block) + size


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc


def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial * (crc >> bits - 1)) & (1 << bits) - 1
        table.append(crc)
    return table


_CRC8: Final = _table(0x07, 8)
_CRC16: Final = _table(0x8005, 16)
