"""Ogg: pages with numbers and checksums, the last of each stream marked; Vorbis, Opus and FLAC in it."""

from __future__ import annotations

import re
import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from src.data.containers import flac
from src.data.containers.part import AudioError, Part, announced, corrupt

_FIRST, _LAST = 2, 4  # flags of a stream's pages
_SOUND: Final = re.compile(rb"\x01vorbis|OpusHead|\x7fFLAC|Speex   ")  # how streams of sound begin
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    begin: int
    body: int
    end: int
    flags: int
    serial: int
    number: int


def begins(data: bytes, at: int) -> bool:
    return data.startswith(b"OggS", at)


def parse(data: bytes, at: int) -> tuple[Part, int]:
    """The recording that begins at ``at`` and where it ends: at the next link of a chain, or where no page begins.

    Raises:
        AudioError: pages are missing or damaged, the last one included; or there is not one stream of sound.
    """
    streams: dict[int, list[_Page]] = defaultdict(list)
    position, headers = at, True
    while begins(data, position):
        page = _page(data, position)
        headers = headers and bool(page.flags & _FIRST)
        if page.flags & _FIRST and not headers:
            break
        streams[page.serial].append(page)
        position = page.end
    for pages in streams.values():
        if not pages[0].flags & _FIRST or any(b.number != a.number + 1 for a, b in pairwise(pages)):
            raise AudioError("truncated", "pages of its Ogg stream are missing")
        if not pages[-1].flags & _LAST:
            raise AudioError("truncated", "its Ogg stream ends without the page that is marked as the last")
    sound = [pages for pages in streams.values() if _SOUND.match(data, pages[0].body)]
    if len(sound) != 1:
        raise corrupt(f"its Ogg stream holds {len(sound)} streams of sound, not one")
    (pages,) = sound
    if data.startswith(b"\x7fFLAC", pages[0].body):
        return _native_flac(data, pages), position
    view = memoryview(data)
    return Part(tuple(view[page.begin : page.end] for page in pages), None), position


def _page(data: bytes, at: int) -> _Page:
    announced(at, 27, len(data), "last Ogg page")
    _, flags, _, serial, number, checksum, segments = struct.unpack("<BBqIIIB", data[at + 4 : at + 27])
    body = at + 27 + segments
    announced(at, 27 + segments, len(data), "last Ogg page")
    end = body + sum(data[at + 27 : body])
    announced(at, end - at, len(data), "last Ogg page")
    if _checksum(data[at : at + 22] + bytes(4) + data[at + 26 : end]) != checksum:
        raise corrupt(f"the Ogg page at byte {at} does not have its checksum")
    return _Page(at, body, end, flags, serial, number)


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32 by zlib's: the same polynomial, with the bits of every byte and of the result mirrored."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def _native_flac(data: bytes, pages: list[_Page]) -> Part:
    """FLAC out of its pages: what they hold is a FLAC file behind nine bytes."""
    whole = b"".join(data[page.body : page.end] for page in pages)[9:]
    if not flac.begins(whole, 0):
        raise corrupt("its Ogg stream of FLAC does not begin as one")
    part, end = flac.parse(whole, 0)
    if end != len(whole):
        raise corrupt("its Ogg stream of FLAC goes on behind its end")
    return part
