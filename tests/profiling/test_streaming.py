"""Sliding windows: pairs counted one by one, how far the encoder of a real model is behind, and costs by the chunk."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from src.models.dimensions import AttentionWindow
from src.models.families import dimensions_of
from src.profiling.bitops import by_component, encoder_products, total_macs
from src.profiling.point_profile import profile_point
from src.profiling.streaming import Streaming, streaming
from src.settings import EdgeDeviceSettings
from tests.composed import composed
from tests.profiling.profiling_points import page_point, point_of, uniform_bits
from tests.tiny import tiny_moonshine
from tests.tiny.moonshine_streaming import tiny_streaming, tiny_uneven_streaming

FRAME = 320  # samples


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 7, 40])
@pytest.mark.parametrize("window", [(0, 0), (5, 0), (5, 2), (0, 3), (100, 100)], ids=str)
def test_pairs_are_those_that_are_not_masked(window: tuple[int, int], frames: int) -> None:
    before, after = window
    seen = [key for query in range(frames) for key in range(frames) if query - before <= key <= query + after]
    assert AttentionWindow(before, after).pairs(frames) == len(seen)


def test_windows_are_those_of_the_masks() -> None:
    speech = tiny_streaming(encoder={"sliding_windows": [[6, 3], [4, 0]]})
    _, arguments, _ = speech.encoder_inputs(speech.features([np.zeros(30 * FRAME, np.float32)]))
    pairs = [
        int((mask == 0).sum() if mask.dtype.is_floating_point else mask.sum()) for mask in arguments["attention_mask"]
    ]
    assert pairs == [window.pairs(30) for window in dimensions_of(speech.module.config).encoder_windows]


def test_macs_grow_with_the_window_and_not_with_the_square_of_the_length() -> None:
    narrow, wide = (
        point_of(tiny_streaming(encoder={"sliding_windows": windows}), seconds=2.0)
        for windows in ([[6, 3], [6, 0]], [[200, 200], [200, 200]])
    )
    # 100 frames, 2 blocks of 2 heads of 32: all pairs; 8 frames before and after less the edges, and 6
    full, seen = 2 * 100 * 100, (8 * 100 - 15 - 3) + (6 * 100 - 15)
    assert total_macs(encoder_products(wide)) - total_macs(encoder_products(narrow)) == 2 * 64 * (full - seen)
    assert point_of(tiny_moonshine()).dimensions.encoder_pairs(10) == 2 * 100


@pytest.mark.parametrize("windows", [[[6, 3], [6, 0]], [[4, 3], [4, 4]]], ids=str)
def test_a_frame_depends_on_its_lookahead_and_on_nothing_after_it(windows: list[list[int]]) -> None:
    speech = tiny_streaming(encoder={"sliding_windows": windows})
    found = streaming(point_of(speech), None)
    assert found is not None
    ahead = round(found.lookahead_ms / found.frame_ms)
    clip = (0.1 * np.random.default_rng(0).standard_normal(40 * FRAME)).astype(np.float32)
    at = 20
    changes = {}
    for frame in (at + ahead, at + ahead + 1):
        other = clip.copy()
        other[frame * FRAME : (frame + 1) * FRAME] = 0
        a, b = (speech.encode(speech.features([each])).states[0, at] for each in (clip, other))
        changes[frame - at - ahead] = not torch.equal(a, b)
    assert changes == {0: True, 1: False}


def _stream(device: EdgeDeviceSettings | None = None, weight_bits: int = 16) -> Streaming:
    speech = tiny_uneven_streaming()
    found = streaming(point_of(speech, bits=uniform_bits(speech.graph, weight_bits, 16)), device)
    assert found is not None
    return found


def test_a_second_of_audio_costs_what_a_longer_utterance_costs_more() -> None:
    speech = tiny_uneven_streaming()
    shorter, longer = (point_of(speech, seconds) for seconds in (1.0, 2.0))
    encoder = total_macs(encoder_products(longer)) - total_macs(encoder_products(shorter))
    cross = 50 * 2 * 2 * 64 * 64  # k and v of two blocks
    assert _stream().macs_a_second == encoder + cross
    assert by_component(encoder_products(longer), lambda each: each.macs)["frontend"] == 100 * (
        4 * 80 * 96 + 2 * 5 * 96 * 192 + 5 * 192 * 96
    )


def test_longer_chunks_move_fewer_bytes_and_are_later() -> None:
    found = _stream()
    assert [chunk.ms for chunk in found.chunks] == [80, 160, 320, 640, 1280]
    assert [chunk.latency_ms for chunk in found.chunks] == [chunk.ms + found.lookahead_ms for chunk in found.chunks]
    moved = [chunk.bytes_a_second for chunk in found.chunks]
    assert moved == sorted(moved, reverse=True)
    for chunk in found.chunks:
        assert chunk.bytes_a_second == pytest.approx(chunk.memory_io_bytes * 1000 / chunk.ms)
    # a frame more: its row of positions (96), its keys and values in the cache (2 layers of 64) and in 2 encoder blocks
    first, second = found.chunks[:2]
    assert second.memory_io_bytes - first.memory_io_bytes == 4 * 2 * (96 + 2 * 2 * 64 + 2 * 2 * 64)


def test_weights_are_read_once_a_chunk() -> None:
    plain, packed = _stream(), _stream(weight_bits=4)
    saved = {
        one.memory_io_bytes - other.memory_io_bytes for one, other in zip(plain.chunks, packed.chunks, strict=True)
    }
    assert len(saved) == 1
    assert plain.macs_a_second == packed.macs_a_second
    assert packed.bops_a_second < plain.bops_a_second


def test_a_device_takes_the_longer_of_a_chunks_two_times() -> None:
    rates = {"name": "page", "gops": {"float32": 1.0}}
    slow = _stream(EdgeDeviceSettings.model_validate({**rates, "bandwidth_gb_s": 1e-3}))
    fast = _stream(EdgeDeviceSettings.model_validate({**rates, "bandwidth_gb_s": 1e9}))
    for chunk in slow.chunks:
        assert chunk.device_ms == pytest.approx(chunk.memory_io_bytes / 1e6 * 1e3)
    for chunk in fast.chunks:
        assert chunk.device_ms == pytest.approx(2 * fast.macs_a_second * chunk.ms / 1000 / 1e9 * 1e3)
    none = _stream(composed("edge_device=none").edge_device)
    assert {chunk.device_ms for chunk in none.chunks} == {None}


def test_it_is_part_of_the_profile_of_models_with_windows() -> None:
    assert profile_point(page_point(), disk_bytes=0).streaming is None
    told = profile_point(point_of(tiny_streaming()), disk_bytes=0)
    assert json.loads(json.dumps(dataclasses.asdict(told)))["streaming"]["lookahead_ms"] == 40
