"""Containers that are lists of named chunks: RIFF, RIFX, RF64 (wav), W64, AIFF and AIFF-C, CAF.

The chunk of the sound tells its length; the size of the whole is not believed, since many programs write it wrong. The
decoder gets the chunks that describe the sound, and the sound, with sizes that are true.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from src.data.containers import mpeg
from src.data.containers.chunk_formats import MPEG, ChunkFormat, Chunks, aiff_frames, chunk_format, wav_codec
from src.data.containers.part import Part, announced, corrupt, streamed

_Other = Callable[[bytes, int], bool]


def begins(data: bytes, at: int) -> bool:
    """Whether a file of these families begins at ``at``."""
    return chunk_format(data, at) is not None


def parse(data: bytes, at: int, other: _Other) -> tuple[Part, int]:
    """The recording that begins at ``at`` and where it ends; ``other`` tells where a tag or another file begins.

    Raises:
        AudioError: the sound is not all there, or there is none.
    """
    form = chunk_format(data, at)
    assert form is not None
    position = at + form.head
    head = data[at:position]
    found: dict[bytes, bytes] = {}
    sound: slice | None = None
    while (chunk := form.chunk(data, position)) is not None and not other(data, position):
        name, size = chunk
        begin = position + form.header
        if name == form.sound:
            if sound is not None:
                raise corrupt("it has two chunks of sound")
            sound = _sound(form, data, begin, size, found, other)
            size = sound.stop - begin
        elif begin + size > len(data):
            if sound is None:
                announced(begin, size, len(data), f"{name[:4].decode()!r} chunk")
            whole = form.whole(head)
            if (size if whole is None else begin + size - at) > (1 << 32 if whole is None else whole):
                break  # no chunk: it may be sound that the header does not count
            size = len(data) - begin  # cut off behind the sound, which is whole
        if name in (*form.kept, b"ds64"):
            found.setdefault(name, data[begin : begin + size])
        position = _behind(form, data, begin + size, size, other)
    if sound is None:
        announced(at, form.whole(head) or 0, len(data), f"{form.name} header")
        raise corrupt(f"it is {form.name} without a chunk of sound")
    return _part(form, head, found, memoryview(data)[sound]), min(position, len(data))


def _sound(form: ChunkFormat, data: bytes, begin: int, size: int, found: Chunks, other: _Other) -> slice:
    """Where the sound is: as announced if it is all there, or up to the end where nothing is announced."""
    if size == 0xFFFFFFFF and len(wide := found.get(b"ds64", b"")) >= 16:  # RF64
        true = struct.unpack("<q", wide[8:16])[0]
        size = true if 0 < true < 1 << 60 else size
    elif form.lengths == 8 and size >= 1 << 63:
        size -= 1 << 64
    first = begin + form.prefix
    if form.name == "AIFF" and len(data) >= first:
        first += int.from_bytes(data[begin : begin + 4], "big")  # bytes that align its blocks
    if not form.unknown(size):
        announced(begin, size, len(data), f"chunk of sound ({form.name})")
        return slice(first, max(first, begin + size))
    if size == 0 and (begin >= len(data) or other(data, begin) or form.fits(data, begin)):
        return slice(begin, begin)
    first = min(first, len(data))
    return slice(first, first + streamed(data, first, form.width(found)))


def _behind(form: ChunkFormat, data: bytes, end: int, size: int, other: _Other) -> int:
    """Where the next chunk begins: chunks are filled up to an even size, but some programs forget that.

    Others do it where the format does not: libsndfile's CAF ends at an even byte.
    """
    places = (end + -size % form.align, end, end + size % 2)
    fits = (place for place in places if place >= len(data) or other(data, place) or form.fits(data, place))
    return next(fits, places[0])


def _part(form: ChunkFormat, head: bytes, found: Chunks, sound: memoryview) -> Part:
    if wav_codec(found) in MPEG:  # the frames tell more than the wav header around them
        part, stop = mpeg.parse(bytes(sound), 0)
        if stop != len(sound):
            raise corrupt("its chunk of sound holds more than MPEG frames")
        return part
    width = form.width(found)
    frames = len(sound) // width if width else None
    if form.name == "AIFF" and frames is not None:
        announced(0, aiff_frames(found), frames, "COMM chunk", "samples")
    kept = [piece for name in form.kept if name in found for piece in form.made(name, found[name])]
    body = [*kept, *form.made(form.sound, bytes(form.prefix), sound)]
    whole = bytearray(head)
    if form.total is not None:
        place, more = form.total
        whole[place] = (len(head) + sum(map(len, body)) - more).to_bytes(place.stop - place.start, form.order)
    if head[:4] in (b"RF64", b"BW64"):
        whole[:4] = b"RIFF"  # a file that is held in memory needs no wide sizes
    return Part((bytes(whole), *body), frames)
