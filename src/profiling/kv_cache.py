"""Bytes of the decoder's caches, at 16 bits, rounded per token and head, or per channel (keys; KIVI, 2402.02750)."""

from __future__ import annotations

from src.profiling.cost_model import FULL_BITS, FULL_BYTES, CostModel

_SCALE_BITS = 16


def cross_cache_bytes(point: CostModel) -> int:
    """Keys and values of all frames of all utterances in all layers: what is written once, and read by every pass."""
    values = point.frames * row_bytes(point)
    keys = values if point.key_group is None else _packed(point, point.frames)
    return point.workload.batch * point.dimensions.decoder.layers * (keys + values)


def self_cache_bytes(point: CostModel, before: int, after: int) -> int:
    """What a pass that takes the cache of one sequence from ``before`` to ``after`` tokens writes and reads.

    It writes the new tokens and reads all.
    """
    values = row_bytes(point) * (after - before + after)
    keys = values if point.key_group is None else _channel_keys(point, point.key_group, before, after)
    return point.dimensions.decoder.layers * (keys + values)


def self_cache_held(point: CostModel) -> int:
    """What one sequence's cache takes at the end of the utterance."""
    positions = point.workload.positions
    values = row_bytes(point) * positions
    keys = values if point.key_group is None else _stored_keys(point, point.key_group, positions)
    return point.dimensions.decoder.layers * (keys + values)


def row_bytes(point: CostModel) -> int:
    """Bytes of one layer's keys (or values) of one position, which share a grid per head."""
    quantized = point.kv_bits < FULL_BITS
    overhead = _SCALE_BITS + point.kv_bits if quantized else 0
    heads = point.dimensions.decoder.kv_heads
    return -(-heads * (point.dimensions.head_dim * point.kv_bits + overhead) // 8)


def _channel_keys(point: CostModel, group: int, before: int, after: int) -> int:
    """One layer's keys: new ones are written at 16 bits and again, packed, when their group is complete.

    A prompt, which comes at once, is written packed as far as it fills groups.
    """
    if before == 0:
        return 2 * _stored_keys(point, group, after)
    completed = after // group - before // group
    written = (after - before) * _width(point) * FULL_BYTES + completed * _packed(point, group)
    return written + _stored_keys(point, group, after)


def _stored_keys(point: CostModel, group: int, positions: int) -> int:
    """One layer's keys of ``positions``: complete groups packed, the others at 16 bits."""
    left = point.residual(positions)
    return (positions - left) // group * _packed(point, group) + left * _width(point) * FULL_BYTES


def _packed(point: CostModel, tokens: int) -> int:
    """One layer's keys of ``tokens`` positions that share a grid per channel: a scale and a minimum each."""
    return -(-_width(point) * (tokens * point.kv_bits + 2 * _SCALE_BITS) // 8)


def _width(point: CostModel) -> int:
    """Values of one layer's keys of one position."""
    return point.dimensions.decoder.kv_heads * point.dimensions.head_dim
