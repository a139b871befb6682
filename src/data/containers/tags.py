"""What may lie before, between and behind recordings without being sound: tags and padding."""

from __future__ import annotations

from src.data.containers.part import announced

_PADDING = 4096  # zero bytes behind a tag or a recording: a block of a disk; more are of a file not written whole


def behind_tags(data: bytes, at: int) -> int:
    """The first position from ``at`` on where neither a tag nor the padding of one is, nor what fills up the file.

    Raises:
        AudioError: a tag is cut off.
    """
    tagged = False
    while (end := _tag(data, at)) is not None:
        at, tagged = end, True
    rest = data[at : at + _PADDING + 1]
    padding = len(rest) - len(rest.lstrip(b"\0"))
    return at + padding if padding <= _PADDING and (tagged or at + padding == len(data)) else at


def _tag(data: bytes, at: int) -> int | None:
    """Where the tag that begins at ``at`` ends."""
    head = data[at : at + 32]
    if head[:3] == b"ID3" and len(head) >= 10 and head[3] < 0x10 and all(byte < 0x80 for byte in head[6:10]):
        size = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        size += 10 if head[5] & 0x10 else 0  # it has a footer
        announced(at, size, len(data), "ID3 tag")
        return at + size
    if head[:8] == b"APETAGEX" and len(head) == 32 and head[23] & 0x20:  # its header; the size leaves that out
        size = 32 + int.from_bytes(head[12:16], "little")
        announced(at, size, len(data), "APE tag")
        return at + size
    if head[:11] == b"LYRICSBEGIN" and (end := data.find(b"LYRICS200", at)) > 0:
        return end + 9
    if head[:3] == b"TAG":
        size = 227 if head[3:4] == b"+" else 128
        announced(at, size, len(data), "ID3 tag")
        return at + size
    return None
