"""How the containers that are lists of named chunks write them: RIFF, RIFX, RF64 (wav), W64, AIFF and AIFF-C, CAF."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from src.data.containers.part import corrupt

Chunks = Mapping[bytes, bytes]

MPEG: Final = frozenset({0x50, 0x55})  # wav: layers I and II, layer III
_LINEAR: Final = frozenset({1, 3})  # wav: pcm, float
_LOGARITHMIC: Final = frozenset({6, 7})  # wav: A-law, mu-law, a byte a sample whatever the header says
_EXTENSIBLE: Final = 0xFFFE
_AIFC: Final = {b"fl32": 4, b"in32": 4, b"fl64": 8, b"alaw": 1, b"ulaw": 1, b"in24": 3}  # bytes of a sample
_GUID: Final = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # behind the names of W64's chunks
_W64: Final = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


@dataclass(frozen=True)
class ChunkFormat:
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
        width: bytes of a sample of all channels, from those chunks; 0 where a compression makes it vary.
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
    width: Callable[[Chunks], int]

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
            return size <= 0 or size >= 1 << 60
        return size == 0 or 0x7F000000 <= size <= 0x80001000 or size >= 0xFF000000

    def chunk(self, data: bytes, at: int) -> tuple[bytes, int] | None:
        """Name and size of the content of the chunk that begins at ``at``; None where none does."""
        name, length = data[at : at + self.names], data[at + self.names : at + self.header]
        if len(length) < self.lengths or not all(32 <= byte < 127 for byte in name[:4]):
            return None
        size = int.from_bytes(length, self.order) - self.header * self.inclusive
        return None if self.inclusive and size < 0 and name != self.sound else (name, max(size, 0))

    def fits(self, data: bytes, at: int) -> bool:
        """Whether a whole chunk begins at ``at``."""
        chunk = self.chunk(data, at)
        return chunk is not None and at + self.header + chunk[1] <= len(data)

    def made(self, name: bytes, *content: bytes | memoryview) -> list[bytes | memoryview]:
        """A chunk, filled up."""
        size = sum(map(len, content))
        length = (size + self.header * self.inclusive).to_bytes(self.lengths, self.order)
        return [name + length, *content, bytes(-size % self.align)]


def chunk_format(data: bytes, at: int) -> ChunkFormat | None:
    """The form of the file that begins at ``at``; None where it is of another family."""
    head = data[at : at + 16]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _RIFX if head[:4] == b"RIFX" else _RIFF
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if head == _W64:
        return _SONY
    return _CAF if head[:4] == b"caff" and head[8:12] == b"desc" else None


def wav_codec(found: Chunks) -> int:
    """Number of a wav file's encoding; 0 of another family's."""
    return int.from_bytes(found.get(b"fmt ", b"")[:2], "little")


def aiff_frames(found: Chunks) -> int:
    """Samples of each channel that an AIFF file announces apart from its sound's size; 0 where it does not."""
    frames = int.from_bytes(found.get(b"COMM", b"")[2:6], "big")
    return 0 if frames >= 0x7F000000 // 8 else frames  # in a stream it stands for "not known"


def _wav_width(name: bytes, order: str, found: Chunks) -> int:
    fmt = _describes(found, name, 16)
    codec, channels, hertz, speed, block, bits = struct.unpack(f"{order}HHIIHH", fmt[:16])
    if codec == _EXTENSIBLE and len(fmt) >= 26:
        codec = struct.unpack(f"{order}H", fmt[24:26])[0]
    if codec not in _LOGARITHMIC | _LINEAR:
        return 0
    width = int(channels) if codec in _LOGARITHMIC else _width(channels, bits, block)
    if speed not in (0, hertz * width):  # which of the two is wrong cannot be told, and a wrong rate is another speech
        raise corrupt(f"its header gives {speed} bytes a second, and {hertz} samples of {width} bytes")
    return width


def _aiff_width(found: Chunks) -> int:
    comm = _describes(found, b"COMM", 18)
    channels, _, bits = struct.unpack(">HIH", comm[:8])
    codec = comm[18:22] or b"NONE"
    if codec in (b"NONE", b"twos", b"sowt", b"raw "):
        return int(channels * ((bits + 7) // 8))
    return int(channels * _AIFC.get(codec.lower(), 0))


def _caf_width(found: Chunks) -> int:
    codec, _, packet, frames, channels, bits = struct.unpack(">4s5I", _describes(found, b"desc", 32)[8:32])
    if codec in (b"alaw", b"ulaw"):
        return int(channels)
    return _width(channels, bits, packet) if codec == b"lpcm" and frames == 1 else 0


def _width(channels: int, bits: int, block: int) -> int:
    """Bytes of a sample of all channels; ``block`` is what the header says they are, or 0."""
    width = channels * ((bits + 7) // 8)
    if block not in (0, width):
        raise corrupt(f"its header gives {block} bytes to a sample of {channels} channels of {bits} bits")
    return width


def _describes(found: Chunks, name: bytes, size: int) -> bytes:
    chunk = found.get(name, b"")
    if len(chunk) < size:
        raise corrupt("it has no chunk that describes its sound")
    return chunk


def _riff(order: Literal["little", "big"]) -> ChunkFormat:
    width = partial(_wav_width, b"fmt ", "<" if order == "little" else ">")
    return ChunkFormat("wav", 12, order, (slice(4, 8), 8), 4, 4, False, 2, b"data", 0, (b"fmt ", b"fact"), width)


_RIFF: Final = _riff("little")
_RIFX: Final = _riff("big")
_SONY: Final = ChunkFormat(
    name="W64",
    head=40,
    order="little",
    total=(slice(16, 24), 0),
    names=16,
    lengths=8,
    inclusive=True,
    align=8,
    sound=b"data" + _GUID,
    prefix=0,
    kept=(b"fmt " + _GUID, b"fact" + _GUID),
    width=partial(_wav_width, b"fmt " + _GUID, "<"),
)
_AIFF: Final = ChunkFormat(
    name="AIFF",
    head=12,
    order="big",
    total=(slice(4, 8), 8),
    names=4,
    lengths=4,
    inclusive=False,
    align=2,
    sound=b"SSND",
    prefix=8,
    kept=(b"FVER", b"COMM"),
    width=_aiff_width,
)
_CAF: Final = ChunkFormat(
    name="CAF",
    head=8,
    order="big",
    total=None,
    names=4,
    lengths=8,
    inclusive=False,
    align=1,
    sound=b"data",
    prefix=4,
    kept=(b"desc", b"chan", b"kuki", b"pakt"),
    width=_caf_width,
)
