"""Encoded audio taken apart before it is decoded: what a file announces is compared with what it holds.

Decoders read what there is of a cut file without a word, stop at what a wrong header says, and pass over recordings
that were joined to the first. Here a file is split into its recordings, each found whole, until nothing is left but
tags and padding; what cannot be accounted for is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from src.data.containers import chunks, flac, headers, mpeg, ogg
from src.data.containers.part import AudioError, Part
from src.data.containers.tags import behind_tags

__all__ = ["AudioError", "Part", "parts"]

_Parser = Callable[[bytes, int], tuple[Part, int]]

_LARGEST: Final = (1 << 32) - (1 << 20)  # bytes, so that the sizes of every container can say them
_FOREIGN: Final = {  # what users may take for audio that is read here, by the bytes at a place
    (4, b"ftyp"): "it is MP4 or M4A",
    (0, b"\x1aE\xdf\xa3"): "it is WebM or Matroska",
    (0, b"0&\xb2u\x8ef\xcf\x11"): "it is Windows Media",
    (0, b"#!AMR"): "it is AMR",
    (0, b"ajkg"): "it is Shorten",
    (0, b"Creative Voice"): "it is VOC",
    (0, b"FORM"): "it is an IFF file of another kind than AIFF",
    (0, b"version https://git-lfs"): "it is a pointer of Git LFS, not the file (git lfs pull)",
    (0, b"\xff\xf1"): "it is AAC",
    (0, b"\xff\xf9"): "it is AAC",
    (0, b"PK\3\4"): "it is a zip archive",
    (0, b"\x1f\x8b"): "it is compressed by gzip",
    (0, b"<"): "it is a page of HTML or XML, as a download that failed leaves",
}


def parts(encoded: bytes) -> Iterator[Part]:
    """The recordings that a file holds, in order; more than one where files were joined.

    Raises:
        AudioError: something is cut off, damaged, or no recording at all.
    """
    if len(encoded) > _LARGEST:
        raise AudioError("over-long", "it has more than 4 GiB: cut it")
    at = behind_tags(encoded, 0)
    if at == len(encoded):
        raise AudioError("corrupt", "it holds no recording")
    while at < len(encoded):
        parser = _parser(encoded, at)
        if parser is None:
            raise _unaccounted(encoded, at)
        part, end = parser(encoded, at)
        yield part
        at = behind_tags(encoded, end)


def _parser(data: bytes, at: int) -> _Parser | None:
    for begins, parse in _FAMILIES:
        if begins(data, at):
            return parse
    return None


def _other(data: bytes, at: int) -> bool:
    """Whether a tag or a recording begins at ``at``."""
    return behind_tags(data, at) != at or _parser(data, at) is not None


def _chunks(data: bytes, at: int) -> tuple[Part, int]:
    return chunks.parse(data, at, _other)


_FAMILIES: Final[tuple[tuple[Callable[[bytes, int], bool], _Parser], ...]] = (
    (chunks.begins, _chunks),
    (flac.begins, flac.parse),
    (ogg.begins, ogg.parse),
    (headers.begins_au, headers.parse_au),
    (headers.begins_nist, headers.parse_nist),
    (mpeg.begins, mpeg.parse),
)


def _unaccounted(data: bytes, at: int) -> AudioError:
    if at:
        detail = f"the {len(data) - at} bytes from byte {at} on are neither sound that its header announces nor a tag"
        return AudioError("corrupt", detail)
    for (place, mark), what in _FOREIGN.items():
        if data.startswith(mark, place):
            return AudioError("unsupported", f"{what}, which is not read: make it wav or flac")
    return AudioError("corrupt", "it is none of wav, flac, ogg, mp3, aiff, caf, au, w64 and nist sphere")
