"""Containers that are one header and then the sound: AU (Sun, NeXT) and NIST SPHERE."""

from __future__ import annotations

import re
from typing import Final, Literal

from src.data.containers.part import AudioError, Part, announced, corrupt, streamed

_WIDTHS: Final = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # bytes of a sample by AU's encodings
_UNKNOWN: Final = 0xFFFFFFFF
_NIST: Final = re.compile(rb"NIST_1A\n *(\d+)\n")


def begins_au(data: bytes, at: int) -> bool:
    return data[at : at + 4] in (b".snd", b"dns.")


def begins_nist(data: bytes, at: int) -> bool:
    return data.startswith(b"NIST_1A", at)


def parse_au(data: bytes, at: int) -> tuple[Part, int]:
    """The recording that begins at ``at`` and where it ends.

    Raises:
        AudioError: it is cut off.
    """
    order: Literal["big", "little"] = "big" if data[at : at + 4] == b".snd" else "little"
    announced(at, 24, len(data), "AU header")
    offset, size, encoding, _, channels = (
        int.from_bytes(data[at + place : at + place + 4], order) for place in range(4, 24, 4)
    )
    announced(at, max(offset, 24), len(data), "AU header")
    begin = at + max(offset, 24)
    width = channels * _WIDTHS.get(encoding, 0)
    if size in (0, _UNKNOWN):
        size = streamed(data, begin, width)
    announced(begin, size, len(data), "AU header")
    head = data[at : at + 4] + b"".join(number.to_bytes(4, order) for number in (24, size)) + data[at + 12 : at + 24]
    sound = memoryview(data)[begin : begin + size]
    return Part((head, sound), size // width if width else None), begin + size


def parse_nist(data: bytes, at: int) -> tuple[Part, int]:
    """The recording that begins at ``at`` and where it ends.

    Raises:
        AudioError: it is cut off.
    """
    size = _NIST.match(data, at)
    if size is None:
        raise corrupt("its NIST header has no size")
    begin = at + int(size[1])
    announced(at, begin - at, len(data), "NIST header")
    head = data[at:begin]
    if (coding := re.search(rb"sample_coding -s\d+ (\S+)", head)) and b"," in coding[1]:
        raise AudioError("unsupported", f"it is NIST SPHERE in {coding[1].decode('latin-1')}: make it wav or flac")
    width = _field(head, b"sample_n_bytes", 0) * _field(head, b"channel_count", 1)
    count = _field(head, b"sample_count", 0)
    length = width * count or streamed(data, begin, width)
    announced(begin, length, len(data), "NIST header")
    frames = length // width if width else count or None
    return Part((head, memoryview(data)[begin : begin + length]), frames), begin + length


def _field(head: bytes, name: bytes, default: int) -> int:
    """A number, which some write as text: libsndfile's A-law and mu-law have ``sample_n_bytes -s1 1``."""
    found = re.search(rb"^" + name + rb" -(?:i|s\d+) (\d{1,12})\s", head, re.MULTILINE)
    return int(found[1]) if found else default
