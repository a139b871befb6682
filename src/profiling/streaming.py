"""What an encoder with sliding windows costs while audio comes in, chunk by chunk.

Front-end, encoder, adapter, and the keys and values of the cross-attention run on every chunk; decoding costs what a
step does, whenever text is asked for. A block encodes a frame as soon as the frames that it sees after it are there, so
the encoder is behind by the sum of these over its blocks: the lookahead. At the end of a chunk all frames are encoded
that can be, so the audio of a frame waits for the lookahead and, at most, for a chunk.

Multiply-accumulates and bit operations a second are those of the frames in it, each with a full window, whatever the
chunk. Bytes depend on it: weights are read once a chunk. So are a block's keys and values of the frames that it sees
around the chunk, at 16 bits; those of the chunk's own are written, and so are the cross-attention's. Activations, those
that wait for frames to come among them, are no more part of it than elsewhere (:mod:`src.profiling.memory_io`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from src.data.audio import SAMPLING_RATE
from src.profiling.bitops import Product, cross_kv_products, encoder_products, total_bops, total_macs
from src.profiling.cost_model import FULL_BYTES, CostModel, Workload
from src.profiling.kv_cache import cross_cache_bytes
from src.profiling.memory_io import FRAME_POSITIONS, KV_CACHE, moves
from src.profiling.passes import Phase
from src.profiling.roofline import arithmetic
from src.settings import EdgeDeviceSettings

_CHUNKS: Final = (4, 8, 16, 32, 64)  # frames
_MS: Final = 1e3
_GIGA: Final = 1e9


@dataclass(frozen=True)
class Chunk:
    """Costs with chunks of one length.

    Attributes:
        ms: audio of a chunk.
        memory_io_bytes: moved for one.
        bytes_a_second: of audio.
        latency_ms: from the beginning of a frame's audio until it is encoded, at most, were computing to take no time.
        device_ms: what computing a chunk takes at least on the edge device, which adds to that and has to be less than
            ``ms``; None without a device.
    """

    ms: float
    memory_io_bytes: int
    bytes_a_second: float
    latency_ms: float
    device_ms: float | None


@dataclass(frozen=True)
class Streaming:
    """Costs of encoding a stream.

    Attributes:
        frame_ms: audio of a frame.
        lookahead_ms: of audio after a frame that its encoding depends on.
        macs_a_second: multiply-accumulates a second of audio.
        bops_a_second: bit operations, likewise.
        chunks: by length, the shortest first.
    """

    frame_ms: float
    lookahead_ms: float
    macs_a_second: int
    bops_a_second: int
    chunks: tuple[Chunk, ...]


def streaming(point: CostModel, device: EdgeDeviceSettings | None) -> Streaming | None:
    """Costs of one stream; None of a model whose encoder has no windows."""
    windows = point.dimensions.encoder_windows
    if not windows:
        return None
    samples = point.dimensions.hop * prod(conv.stride for conv in point.dimensions.frontend)
    rate = SAMPLING_RATE / samples
    full = max(window.frames for window in windows)
    fewer, more = (_utterance(point, frames * samples / SAMPLING_RATE) for frames in (full, full + 1))
    frame = [
        replace(long, macs=long.macs - short.macs)
        for short, long in zip(_products(fewer), _products(more), strict=True)
    ]
    lookahead = sum(window.after for window in windows)
    cached = cross_cache_bytes(more) - cross_cache_bytes(fewer)
    chunks = []
    for frames in _CHUNKS:
        size = _weights(point) + frames * (_position(point) + cached) + _state(point, frames)
        chunks.append(
            Chunk(
                ms=_MS * frames / rate,
                memory_io_bytes=size,
                bytes_a_second=size * rate / frames,
                latency_ms=_MS * (lookahead + frames) / rate,
                device_ms=None if device is None else _device_ms(frame, frames, size, device),
            )
        )
    return Streaming(
        frame_ms=_MS / rate,
        lookahead_ms=_MS * lookahead / rate,
        macs_a_second=round(rate * total_macs(frame)),
        bops_a_second=round(rate * total_bops(frame)),
        chunks=tuple(chunks),
    )


def _utterance(point: CostModel, seconds: float) -> CostModel:
    """One, of any length, without text: a stream is as long as it likes."""
    return replace(
        point,
        dimensions=replace(point.dimensions, frame_positions=0),
        workload=Workload(seconds, 0, point.workload.prompt),
    )


def _products(point: CostModel) -> list[Product]:
    return [*encoder_products(point), *cross_kv_products(point)]


def _weights(point: CostModel) -> int:
    """Bytes of what is read once an utterance, and so once a chunk: all but caches and the table of positions."""
    once, by_rows = (Phase.ENCODER, Phase.CROSS_KV), (KV_CACHE, FRAME_POSITIONS)
    return sum(move.size for move in moves(point) if move.phase in once and not {move.part, move.what} & {*by_rows})


def _position(point: CostModel) -> int:
    """Bytes of a frame's row in the table of positions."""
    return FULL_BYTES * point.dimensions.frame_width if point.dimensions.frame_positions else 0


def _state(point: CostModel, frames: int) -> int:
    """Bytes of the encoder's keys and values that a chunk reads, of frames around its own, and writes."""
    dimensions = point.dimensions
    row = 2 * FULL_BYTES * dimensions.encoder.kv_heads * dimensions.head_dim
    return sum(row * (window.before + window.after + frames) for window in dimensions.encoder_windows)


def _device_ms(frame: Iterable[Product], frames: int, size: int, device: EdgeDeviceSettings) -> float | None:
    """The roofline of a chunk; see :mod:`src.profiling.roofline`."""
    if device.bandwidth_gb_s is None:
        return None
    memory = size / device.bandwidth_gb_s
    compute = sum(2 * frames * each.macs / device.gops[arithmetic(each, device)] for each in frame)
    return _MS * max(memory, compute) / _GIGA
