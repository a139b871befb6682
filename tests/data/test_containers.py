"""What a file announces against what it holds: cut files are refused, odd but whole ones are read to their end."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from src.data.audio import AudioError, decode, inspect
from src.data.containers import mpeg, parts
from tests.data.encodings import FORMATS, ID3V1, at, chunk, encoded, id3v2, page, pages, speechlike

WHOLE = {kind: encoded(kind) for kind in FORMATS}
WAV, FLAC, MP3 = WHOLE["wav"], WHOLE["flac"], WHOLE["mp3"]
UNKNOWN = b"\xff\xff\xff\xff"


def kind_of(data: bytes) -> str | None:
    problem = inspect(data).problem
    return None if problem is None else problem.partition(":")[0]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_was_cut_is_called_truncated(kind: str) -> None:
    whole = WHOLE[kind]
    assert kind_of(whole) is None
    for share in (0.1, 0.3, 0.55, 0.9, 0.99):
        assert kind_of(whole[: int(share * len(whole))]) == "truncated", share
    assert kind_of(whole[:-2]) == "truncated"
    with pytest.raises(AudioError, match=r"^truncated"):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("kind", FORMATS)
def test_joined_files_are_read_one_after_the_other(kind: str) -> None:
    one = decode(WHOLE[kind])
    tagged = WHOLE[kind] + ID3V1 + WHOLE[kind] + id3v2() + WHOLE[kind] + ID3V1
    for joined in [WHOLE[kind] * 3] if kind == "flac" else [WHOLE[kind] * 3, tagged]:  # FLAC: CONTRADICTIONS
        assert inspect(joined).problem is None
        np.testing.assert_array_equal(decode(joined), np.concatenate([one, one, one]))


def test_joined_files_of_several_kinds_are_read_and_of_several_rates_refused() -> None:
    np.testing.assert_array_equal(decode(WAV + WHOLE["au"] + FLAC), np.tile(decode(WAV), 3))
    assert kind_of(WAV + encoded("wav", rate=8_000)) == "rate"


def _data(wav: bytes) -> int:
    """Where the sound of a wav file begins."""
    return wav.index(b"data") + 8


def _wav(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


FMT, SOUND = chunk(b"fmt ", WAV[20:36]), WAV[_data(WAV) :]
TITLE = chunk(b"LIST", b"INFOINAM\x03\0\0\0abc", fill=False)
W64_DATA = WHOLE["w64"].index(b"data") + 16
CAF_DATA = WHOLE["caf"].index(b"data") + 4
AIFF_DATA = WHOLE["aiff"].index(b"SSND") + 4
TOTAL = 8 + 13  # of the samples in FLAC's header, with four bits that belong to the width
ODD: dict[str, bytes] = {
    "RIFF size counts the whole file": at(WAV, 4, struct.pack("<I", len(WAV))),
    "no byte rate": at(WAV, 28, bytes(4)),
    "RIFF size of a part": at(WAV, 4, struct.pack("<I", 999)),
    "RIFF size 0": at(WAV, 4, bytes(4)),
    "wav from a pipe, sox": at(at(WAV, 4, struct.pack("<I", 0x7FFFF024)), 40, struct.pack("<I", 0x7FFFF000)),
    "wav from a pipe, ffmpeg": at(at(WAV, 4, UNKNOWN), 40, UNKNOWN),
    "wav from a pipe, arecord": at(at(WAV, 4, struct.pack("<I", 0x80000024)), 40, struct.pack("<I", 0x80000000)),
    "wav never closed": at(at(WAV, 4, bytes(4)), 40, bytes(4)),
    "wav never closed, its header counted": at(at(WAV, 4, struct.pack("<I", 36)), 40, bytes(4)),
    "odd chunk before the sound": _wav(FMT, chunk(b"note", b"abc"), chunk(b"data", SOUND)),
    "odd chunk that is not filled up": _wav(FMT, TITLE, chunk(b"data", SOUND)),
    "chunks behind the sound": _wav(FMT, chunk(b"data", SOUND), chunk(b"LIST", b"INFO"), chunk(b"id3 ", id3v2())),
    "chunk behind the sound that is cut off": _wav(FMT, chunk(b"data", SOUND), chunk(b"LIST", bytes(90)))[:-50],
    "chunks before the description": _wav(chunk(b"JUNK", bytes(28)), FMT, chunk(b"data", SOUND)),
    "tags around wav": id3v2() + WAV + ID3V1,
    "padding": WAV + bytes(4_000),
    "RF64 with a size that is no 0xFFFFFFFF": at(WHOLE["rf64"], WHOLE["rf64"].index(b"data") + 4, UNKNOWN),
    "BW64": b"BW64" + WHOLE["rf64"][4:],
    "W64 from a pipe": at(WHOLE["w64"], W64_DATA, struct.pack("<q", 1 << 62)),
    "CAF from a pipe": at(WHOLE["caf"], CAF_DATA, struct.pack(">q", -1)),
    "AIFF from a pipe": at(WHOLE["aiff"], AIFF_DATA, bytes(4)),
    "AU from a pipe": at(WHOLE["au"], 8, UNKNOWN),
    "NIST without a count": WHOLE["nist"].replace(b"sample_count -i", b"sample_coumt -i"),
    "FLAC from a pipe": at(FLAC, TOTAL, bytes([FLAC[TOTAL] & 0xF0, 0, 0, 0, 0])),
    "FLAC that announces less": at(FLAC, TOTAL + 3, bytes(2)),
    "tags around FLAC": id3v2() + FLAC + ID3V1,
    "tag behind FLAC from a pipe": at(FLAC, TOTAL, bytes([FLAC[TOTAL] & 0xF0, 0, 0, 0, 0])) + ID3V1,
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_is_odd_but_whole_is_read_to_the_last_sample(oddity: str) -> None:
    assert inspect(ODD[oddity]).problem is None
    np.testing.assert_array_equal(decode(ODD[oddity]), decode(WAV))


CONTRADICTIONS: dict[str, tuple[str, bytes]] = {
    "sound its header does not count": ("corrupt", at(WAV, 40, struct.pack("<I", 10_000))),
    "two chunks of sound": ("corrupt", _wav(FMT, chunk(b"data", SOUND), chunk(b"data", SOUND))),
    "24 bits in 4 bytes": ("corrupt", at(WAV, 32, struct.pack("<HH", 4, 24))),
    "another byte rate than its sampling rate makes": ("corrupt", at(WAV, 28, struct.pack("<I", 44_100 * 2))),
    "another sampling rate than its byte rate tells, W64": (
        "corrupt",
        WHOLE["w64"].replace(WAV[24:32], struct.pack("<II", 8_000, 32_000), 1),
    ),
    "no chunk of sound": ("corrupt", _wav(FMT)),
    "no description": ("corrupt", _wav(chunk(b"data", SOUND))),
    "sound that is a part of a sample": ("truncated", ODD["wav from a pipe, ffmpeg"][:-1]),
    "cut, and the outer size mended": ("truncated", at(WAV[:9_000], 4, struct.pack("<I", 8_992))),
    "a tail that is empty": ("truncated", FLAC + bytes(1 << 14)),
    "a tail that is empty, wav": ("corrupt", WAV + bytes(1 << 14)),
    "COMM announces more": ("truncated", WHOLE["aiff"].replace(struct.pack(">HI", 1, 12_001), b"\0\1\0\0\xff\xff")),
    "NIST without a width, cut": ("truncated", WHOLE["nist"].replace(b"n_bytes", b"m_bytes")[:-2000]),
    "FLAC announces more": ("truncated", at(FLAC, TOTAL + 1, b"\1")),
    "FLAC from a pipe, cut": ("truncated", ODD["FLAC from a pipe"][:-9]),
    "FLAC, and tags before the next": ("truncated", FLAC + id3v2() + FLAC),
    "an Ogg page is missing": ("truncated", b"".join(pages(encoded("opus", np.tile(speechlike(), (9, 1))))[:3:2])),
    "an Ogg page is damaged": ("corrupt", at(WHOLE["vorbis"], len(WHOLE["vorbis"]) - 99, b"damage")),
    "a damaged header of a tag": ("truncated", b"ID3\3\0\0\x7f\x7f\x7f\x7f" + MP3),
    "mp3 and something else": ("corrupt", MP3 + b"something else"),
    "M4A": ("unsupported", b"\0\0\0\x20ftypM4A " + bytes(99)),
    "a pointer": ("unsupported", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "a web page": ("unsupported", b"<!DOCTYPE html><html>not found</html>"),
    "VOC": ("unsupported", b"Creative Voice File\x1a" + bytes(99)),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_what_contradicts_itself_is_named(contradiction: str) -> None:
    kind, data = CONTRADICTIONS[contradiction]
    assert kind_of(data) == kind
    with pytest.raises(AudioError, match=f"^{kind}: "):
        decode(data)


def test_a_filled_up_byte_is_no_sample() -> None:
    stream = io.BytesIO()
    soundfile.write(stream, speechlike(99), 16_000, format="WAV", subtype="PCM_U8")
    assert inspect(stream.getvalue()).samples == len(decode(stream.getvalue())) == 99


def _frames(mp3: bytes) -> tuple[bytes, bytes]:
    """The information frame, and the frames of sound behind it."""
    length = mpeg._frame(mp3, 0).length  # type: ignore[union-attr]
    return mp3[:length], mp3[length:]


def test_mp3_is_read_whole_whatever_its_header_announces() -> None:
    """The decoder guesses the length of a file without a header and stops at what a wrong one says."""
    header, sound = _frames(MP3)
    count = header.index(b"Xing") + 8
    announces = int.from_bytes(header[count : count + 4], "big")
    whole = announces * 576 - 529
    changed: dict[str, bytes] = {
        "no header": sound,
        "too few": at(header, count, struct.pack(">I", announces - 9)) + sound,
        "none": at(header, count - 4, bytes(8)) + sound,
    }
    for name, data in changed.items():
        waveform = decode(data)
        assert (name, inspect(data).samples, inspect(data).problem) == (name, len(waveform), None)
        assert len(waveform) == whole
        middle = np.correlate(waveform, decode(MP3)[4_000:8_000])
        assert np.argmax(middle) == 4_000 + 576
    np.testing.assert_array_equal(decode(id3v2() + bytes(2_000) + MP3 + ID3V1), decode(MP3))
    assert kind_of(at(header, count, struct.pack(">I", announces + 9)) + sound) == "truncated"
    assert kind_of(header + sound[: 20 * len(sound) // announces]) == "truncated"
    assert inspect(sound + sound).samples == 2 * announces * 576 - 529  # joined without headers: one recording


def test_a_wav_file_may_hold_mp3() -> None:
    fmt = struct.pack("<HHIIHH", 0x55, 1, 16_000, 4_000, 1, 0)
    made = _wav(chunk(b"fmt ", fmt), chunk(b"data", MP3))
    np.testing.assert_array_equal(decode(made), decode(MP3))


def test_other_streams_in_an_ogg_file_are_passed_over_and_a_second_sound_is_refused() -> None:
    vorbis = pages(WHOLE["vorbis"])
    assert b"".join(vorbis) == WHOLE["vorbis"]
    skeleton = [page(b"OggS\0" + bytes([flag]) + bytes(8) + struct.pack("<II", 7, n) + bytes(4) + b"\x01\x08fishead\0")
                for n, flag in enumerate((2, 4))]  # fmt: skip
    mixed = b"".join([skeleton[0], vorbis[0], skeleton[1], *vorbis[1:]])
    np.testing.assert_array_equal(decode(mixed), decode(WHOLE["vorbis"]))
    both = b"".join([vorbis[0], pages(WHOLE["opus"])[0], *vorbis[1:], *pages(WHOLE["opus"])[1:]])
    assert "2 streams of sound" in str(inspect(both).problem)
    last = vorbis[-1]
    assert kind_of(b"".join(vorbis[:-1]) + page(at(last, 5, bytes([last[5] & 3])))) == "truncated"


def test_flac_in_ogg_is_read_as_flac() -> None:
    blocks = FLAC.index(b"\xff\xf8")
    packets = [b"\x7fFLAC\1\0\0\1" + FLAC[:42], FLAC[42:blocks], FLAC[blocks:]]
    made = b""
    for number, packet in enumerate(packets):
        for start in range(0, max(len(packet), 1), 255 * 254):
            part = packet[start : start + 255 * 254]
            lacing = bytes([255] * (len(part) // 255) + [len(part) % 255])
            flag = 2 if number == 0 else 4 if number == 2 else 0
            made += page(b"OggS\0" + bytes([flag]) + bytes(8) + struct.pack("<II", 5, number) + bytes(4)
                         + bytes([len(lacing)]) + lacing + part)  # fmt: skip
    np.testing.assert_array_equal(decode(made), decode(WAV))
    assert kind_of(made[:-200]) == "truncated"


@pytest.mark.parametrize("make", [lambda data: data, lambda data: data[: len(data) // 2]], ids=["whole", "cut"])
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_never_raise_anything_but_an_audio_error(kind: str, make: Callable[[bytes], bytes]) -> None:
    """Nor does what is decoded differ in length from what was inspected."""
    random = np.random.default_rng(7)
    for _ in range(12):
        data = bytearray(make(WHOLE[kind]))
        for place in random.integers(0, min(len(data), 200), 3):
            data[place] = random.choice([0, 0xFF, 0x7F, random.integers(256)])
        found = inspect(bytes(data))
        if found.problem is None:
            assert len(decode(bytes(data))) == found.samples


def test_the_decoder_is_given_no_more_than_what_was_checked() -> None:
    (part,) = parts(ODD["chunks behind the sound"])
    assert b"LIST" not in b"".join(part.pieces)
    assert part.frames == 12_001
