"""Containers that are lists of named chunks: RIFF, RIFX, RF64 (wav), W64, AIFF and AIFF-C, CAF.

The chunk of the sound tells its length; the size of the whole is not believed, since many programs write it wrong. The
decoder gets the chunks that describe the sound, and the sound, with sizes that are true.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from src.data.containers import mpeg
from src.data.containers.part import Part, announced, corrupt

Chunks = Mapping[bytes, bytes]

_WAVE: Final = re.compile(rb"(RIFF|RIFX|RF64)....WAVE", re.DOTALL)
_ANOTHER: Final = re.compile(rb"(RIFF|RIFX|RF64)....WAVEfmt ", re.DOTALL)
_GUID: Final = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # behind the names of W64's chunks
_W64: Final = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


@dataclass(frozen=True)
class _Form:
    """How a family writes its chunks.

    Attributes:
        name: of the format, for messages.
        head: bytes before the first chunk.
        order: of the bytes of numbers.
        total: where in the head the size of the whole stands, and what is to be added to it; None where nowhere.
        names, lengths: bytes of the name and of the size of a chunk.
        inclusive: whether a chunk's size counts its header.
        align: a chunk is filled up to a multiple of it.
        sound: name of the chunk of the sound.
        prefix: bytes of that chunk before the sound.
        kept: names of the other chunks that the decoder needs.
        frames: length of the sound from those chunks, the prefix and its size in bytes; None where decoding tells.
    """

    name: str
    head: int
    order: Literal["little", "big"]
    total: tuple[slice, int] | None
    names: int
    lengths: int
    inclusive: bool
    align: int
    sound: bytes
    prefix: int
    kept: tuple[bytes, ...]
    frames: Callable[[Chunks, bytes, int], int | None]

    @property
    def header(self) -> int:
        """Bytes of a chunk's header."""
        return self.names + self.lengths

    def whole(self, head: bytes) -> int | None:
        """Size of the file as its head announces it."""
        if self.total is None:
            return None
        place, more = self.total
        return int.from_bytes(head[place], self.order) + more

    def unknown(self, size: int) -> bool:
        """Whether a size says "not known": what programs write that cannot go back to mend it."""
        if self.lengths == 8:
            return size <= 0 or size >= 1 << 62
        return size == 0 or 0x7F000000 <= size <= 0x80001000 or size >= 0xFF000000

    def chunk(self, data: bytes, at: int) -> tuple[bytes, int] | None:
        """Name and size of the content of the chunk that begins at ``at``; None where none does."""
        name, length = data[at : at + self.names], data[at + self.names : at + self.header]
        if len(length) < self.lengths or not all(32 <= byte < 127 for byte in name[:4]):
            return None
        size = int.from_bytes(length, self.order) - self.header * self.inclusive
        return None if self.inclusive and size < 0 else (name, size)

    def made(self, name: bytes, *content: bytes | memoryview) -> list[bytes | memoryview]:
        """A chunk, filled up."""
        size = sum(map(len, content))
        length = (size + self.header * self.inclusive).to_bytes(self.lengths, self.order)
        return [name + length, *content, bytes(-size % self.align)]


def begins(data: bytes, at: int) -> bool:
    """Whether a file of these families begins at ``at``."""
    return _form(data, at) is not None


def parse(data: bytes, at: int, other: Callable[[bytes, int], bool]) -> tuple[Part, int]:
    """The recording that begins at ``at`` and where it ends; ``other`` tells where a tag or another file begins.

    Raises:
        AudioError: the sound is not all there, or there is none.
    """
    form = _form(data, at)
    assert form is not None
    position = at + form.head
    head = data[at:position]
    found: dict[bytes, bytes] = {}
    sound: tuple[int, int] | None = None
    while (chunk := form.chunk(data, position)) is not None and not other(data, position):
        name, size = chunk
        begin = position + form.header
        if name == form.sound:
            if sound is not None:
                raise corrupt("it has two chunks of sound")
            size = _sound_size(form, data, begin, size, found, other)
            sound = begin, begin + size
        elif begin + size > len(data):
            if sound is None:
                announced(begin, size, len(data), f"{name[:4].decode()!r} chunk")
            whole = form.whole(head)
            if (size if whole is None else begin + size - at) > (1 << 32 if whole is None else whole):
                break  # no chunk: the sound may go on here
            size = len(data) - begin  # cut off behind the sound, which is whole
        found.setdefault(name, data[begin : begin + size] if name != form.sound else b"")
        position = _behind(form, data, begin + size, size, other)
    if sound is None:
        announced(at, form.whole(head) or 0, len(data), f"{form.name} header")
        raise corrupt(f"it is {form.name} without a chunk of sound")
    return _part(form, head, found, data, sound), min(position, len(data))


def _sound_size(
    form: _Form, data: bytes, begin: int, size: int, found: Chunks, other: Callable[[bytes, int], bool]
) -> int:
    """Bytes of the chunk of the sound: as announced if they are there, or up to the end where nothing is announced."""
    if size == 0xFFFFFFFF and len(wide := found.get(b"ds64", b"")) >= 16:
        size = struct.unpack("<q", wide[8:16])[0]
        size = 0xFFFFFFFF if size <= 0 or size >= 1 << 62 else size
    elif form.lengths == 8 and size >= 1 << 63:
        size -= 1 << 64
    if not form.unknown(size):
        announced(begin, size, len(data), f"chunk of sound ({form.name})")
        return size
    if size == 0 and (begin == len(data) or other(data, begin) or _fits(form, data, begin)):
        return 0
    following = _ANOTHER.search(data, begin) if form.sound == b"data" else None
    return (following.start() if following else len(data)) - begin


def _fits(form: _Form, data: bytes, at: int) -> bool:
    chunk = form.chunk(data, at)
    return chunk is not None and at + form.header + chunk[1] <= len(data)


def _behind(form: _Form, data: bytes, end: int, size: int, other: Callable[[bytes, int], bool]) -> int:
    """Where the next chunk begins: chunks are filled up to an even size, but some programs forget that."""
    filled = end + -size % form.align
    if filled >= len(data) or other(data, filled) or _fits(form, data, filled):
        return filled
    return end if other(data, end) or _fits(form, data, end) else filled


def _part(form: _Form, head: bytes, found: Chunks, data: bytes, sound: tuple[int, int]) -> Part:
    begin, end = sound
    prefix, content = data[begin : begin + form.prefix], memoryview(data)[begin + form.prefix : end]
    if _codec(found) in (0x50, 0x55):  # MPEG, of which wav headers tell nothing that is to be relied on
        part, stop = mpeg.parse(bytes(content), 0)
        if stop != len(content):
            raise corrupt("its chunk of sound holds more than MPEG frames")
        return part
    kept = [piece for name in form.kept if name in found for piece in form.made(name, found[name])]
    body = [*kept, *form.made(form.sound, prefix, content)]
    whole = bytearray(head)
    if form.total is not None:
        place, more = form.total
        size = len(head) + sum(map(len, body)) - more
        whole[place] = size.to_bytes(place.stop - place.start, form.order)
    if head[:4] == b"RF64":
        whole[:4] = b"RIFF"  # a file that is held in memory needs no wide sizes
    return Part((bytes(whole), *body), form.frames(found, prefix, len(content)))


def _codec(found: Chunks) -> int:
    """Number of a wav file's encoding; 0 of another family's."""
    return int.from_bytes(found.get(b"fmt ", b"")[:2], "little")


def _wav_frames(order: str, name: bytes, found: Chunks, size: int) -> int | None:
    fmt = found.get(name, b"")
    if len(fmt) < 16:
        raise corrupt("it has no chunk that describes its sound")
    codec, channels, _, _, block, bits = struct.unpack(f"{order}HHIIHH", fmt[:16])
    if codec == 0xFFFE and len(fmt) >= 26:
        codec = struct.unpack(f"{order}H", fmt[24:26])[0]
    width = channels * ((bits + 7) // 8)
    linear = codec in (1, 3, 6, 7) and block == width > 0  # pcm, float, A-law, mu-law
    return size // width if linear else None


def _aiff_frames(found: Chunks, prefix: bytes, size: int) -> int | None:
    comm = found.get(b"COMM", b"")
    if len(comm) < 18 or len(prefix) < 8:
        raise corrupt("it has no chunk that describes its sound")
    channels, announces, bits = struct.unpack(">HIH", comm[:8])
    codec = comm[18:22] or b"NONE"
    if codec in (b"NONE", b"twos", b"sowt", b"raw "):
        width = channels * ((bits + 7) // 8)
    else:
        one = {b"fl32": 4, b"in32": 4, b"fl64": 8, b"alaw": 1, b"ulaw": 1, b"in24": 3}
        width = channels * one.get(codec.lower(), 0)
    if not width:
        return None
    frames = (size - int.from_bytes(prefix[:4], "big")) // width
    if frames < announces < 0x7F000000 // width:
        announced(0, announces, frames, "COMM chunk (in samples, not bytes)")
    return max(frames, 0)


def _caf_frames(found: Chunks, prefix: bytes, size: int) -> int | None:
    desc = found.get(b"desc", b"")
    if len(desc) < 32:
        raise corrupt("it has no chunk that describes its sound")
    codec, _, packet, frames, _, _ = struct.unpack(">4s5I", desc[8:32])
    return size // packet * frames if codec in (b"lpcm", b"alaw", b"ulaw") and packet else None


def _riff(order: Literal["little", "big"]) -> _Form:
    def frames(found: Chunks, prefix: bytes, size: int) -> int | None:
        return _wav_frames("<" if order == "little" else ">", b"fmt ", found, size)

    return _Form("wav", 12, order, (slice(4, 8), 8), 4, 4, False, 2, b"data", 0, (b"fmt ", b"fact"), frames)


def _w64_frames(found: Chunks, prefix: bytes, size: int) -> int | None:
    return _wav_frames("<", b"fmt " + _GUID, found, size)


_FORMS: Final = {"<": _riff("little"), ">": _riff("big")}
_SONY: Final = _Form(
    "W64", 40, "little", (slice(16, 24), 0), 16, 8, True, 8, b"data" + _GUID, 0,
    (b"fmt " + _GUID, b"fact" + _GUID), _w64_frames,
)  # fmt: skip
_AIFF: Final = _Form(
    "AIFF", 12, "big", (slice(4, 8), 8), 4, 4, False, 2, b"SSND", 8, (b"FVER", b"COMM"), _aiff_frames
)
_CAF: Final = _Form(
    "CAF", 8, "big", None, 4, 8, False, 1, b"data", 4, (b"desc", b"chan", b"kuki", b"pakt"), _caf_frames
)


def _form(data: bytes, at: int) -> _Form | None:
    head = data[at : at + 16]
    if _WAVE.match(head):
        return _FORMS[">" if head[:4] == b"RIFX" else "<"]
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if head == _W64:
        return _SONY
    return _CAF if head[:4] == b"caff" and head[8:12] == b"desc" else None
