"""Costs computed by hand for one tiny Moonshine (see ``profiling_points``), and how they move with the bits.

Shapes: d = 4, ffn = 8, 10 words; 3 frames; 3 decoder passes over 3 positions that attend to 1 + 2 + 3 = 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from src.models.graph import Component
from src.models.speech import SpeechModel
from src.profiling.bitops import Product, by_component, by_phase, products, total_bops, total_macs
from src.profiling.cost_model import LinearBits
from src.profiling.memory_io import activation_bytes, memory_io
from tests.profiling.profiling_points import page_point, point_of, uniform_bits
from tests.tiny import tiny_moonshine, tiny_whisper

BITS = (2, 3, 4, 8, 16)


def _macs(product: Product) -> int:
    return product.macs


def _bops(product: Product) -> int:
    return product.bops


def _linear_bops(weight_bits: int) -> int:
    """BOPs of the linears, which are all that has 8-bit activations here."""
    return sum(product.bops for product in products(page_point(weight_bits, 8)) if product.right_bits == 8)


def test_macs_by_hand() -> None:
    parts = products(page_point())
    assert by_component(parts, _macs) == {
        # conv1 25*1*4*127, conv2 7*4*8*7, conv3 3*8*4*3
        "frontend": 12_700 + 1_568 + 288,
        # q k v o 4*16, fc1 32, fc2 32, each for 3 frames; scores and values 2*4*3*3
        "encoder": 3 * 128 + 72,
        # q k v o 4*16, fc1 (gated) 16*4, fc2 32, each for 3 tokens; scores and values 2*4 for 6 pairs
        "decoder": 3 * 160 + 48,
        # k v 2*16 for 3 frames; q o 2*16 for 3 tokens; scores and values 2*4 for 3 tokens x 3 frames
        "cross_attention": 96 + 96 + 72,
        "head": 3 * 40,
    }
    assert by_phase(parts, _macs) == {
        "encoder": 14_556 + 456,
        "cross_kv": 96,
        "prefill": 160 + 8 + 32 + 24 + 40,
        "decode": 2 * (160 + 32 + 24 + 40) + 8 * (2 + 3),
    }
    assert total_macs(parts) == 15_924


def test_bops_by_hand_w4a8kv8() -> None:
    assert by_component(products(page_point(4, 8, 8)), _bops) == {
        "frontend": 14_556 * 16 * 16,
        "encoder": 384 * 4 * 8 + 72 * 16 * 16,
        "decoder": 480 * 4 * 8 + 48 * 8 * 16,
        "cross_attention": 192 * 4 * 8 + 72 * 8 * 16,
        "head": 120 * 16 * 16,
    }


def test_memory_io_by_hand_at_16_bits() -> None:
    assert memory_io(page_point()) == {
        # conv1 508, conv2 232, conv3 100 with biases, group norm 8
        "frontend": 2 * 848,
        # 128 weights, two norms 8, biases 12, final norm 4: once
        "encoder": 2 * (128 + 24),
        # k v once; q o and their norm in 3 passes
        "cross_attention": 2 * (32 + 3 * (32 + 4)),
        # 160 weights, two norms 8, biases 20, final norm 4: in 3 passes
        "decoder": 2 * 3 * (160 + 32),
        # a row of 4 for each of 3 positions
        "embedding": 2 * 3 * 4,
        "head": 2 * 3 * 40,
        # keys and values of a position: 16 bytes. Cross: 3 frames, 1 write and 3 reads. Self: 3 writes and 6 reads
        "kv_cache": 16 * (3 * 4) + 16 * (3 + 6),
    }


def test_memory_io_by_hand_w4_kv4() -> None:
    moved = memory_io(page_point(4, 16, 4))
    # a 4x4 linear: 8 bytes of codes, 4 scales of 2 bytes, 4 zero points of 1 byte
    assert moved["encoder"] == 4 * 20 + (16 + 24) + (16 + 12) + 2 * 24
    assert moved["cross_attention"] == 2 * 20 + 3 * (2 * 20 + 2 * 4)
    assert moved["decoder"] == 3 * (4 * 20 + (32 + 48) + (16 + 12) + 2 * 32)
    # keys of a position: 4 codes, scale 16 bits, zero point 4 bits = 36 bits, 5 bytes
    assert moved["kv_cache"] == 2 * 5 * (12 + 9)
    untouched = memory_io(page_point())
    assert all(moved[part] == untouched[part] for part in ("frontend", "embedding", "head"))


def test_keys_per_channel_by_hand() -> None:
    point = replace(page_point(kv_bits=4), key_group=2)
    # keys of n packed positions: 4 n codes, 4 scales and 4 minima of 16 bits = 2 n + 16 bytes; of a waiting one: 8
    cross, written, read = 4 * 22, 3 * 8 + 20, 8 + 20 + 28
    assert memory_io(point)["kv_cache"] == 5 * (12 + 9) + cross + written + read
    # of 6 pairs with keys and 6 with values, 4 MACs each, 2 meet a key that waits at 16 bits
    plain, channel = (by_component(products(each), _bops)["decoder"] for each in (page_point(kv_bits=4), point))
    assert channel - plain == 2 * 4 * 16 * (16 - 4)
    assert total_macs(products(point)) == total_macs(products(page_point()))


def test_quantized_ends_by_hand() -> None:
    """Per row: codes padded to a byte, a scale of 2 bytes, a zero point of 4 bits; all zero points padded together."""
    # rows of 127, 28 and 24 columns: 4, 8 and 4 of them; 10 words of 4 columns
    stored = {"conv1": 4 * 64 + 8 + 2, "conv2": 8 * 14 + 16 + 4, "conv3": 4 * 12 + 8 + 2}
    bits = {f"model.encoder.{name}": LinearBits(size, 4, 16) for name, size in stored.items()}
    bits["model.decoder.embed_tokens"] = LinearBits(10 * 2 + 20 + 5, 4, 16)
    plain, point = page_point(), replace(page_point(), bits=bits)
    before, moved = memory_io(plain), memory_io(point)
    assert moved["frontend"] == sum(stored.values()) + 2 * (8 + 4 + 8)  # biases and group norm
    assert moved["head"] == 3 * 45
    assert moved["embedding"] == 15  # three rows of 36 bits, each padded to a byte
    others = before.keys() - {"frontend", "head", "embedding"}
    assert {name: before[name] for name in others} == {name: moved[name] for name in others}
    bops = by_component(products(point), _bops)
    assert bops["frontend"] == 14_556 * 4 * 16
    assert bops["head"] == 120 * 4 * 16
    assert by_component(products(point), _macs) == by_component(products(plain), _macs)
    assert activation_bytes(point) == activation_bytes(plain)


def test_activation_bound_by_hand() -> None:
    encoder, cross_kv, decoder = 3 * (32 + 24), 3 * 16, 3 * (32 + 16 + 20 + 12)
    frontend = (1663 + 25 * 4) + (25 * 4 + 7 * 8) + (7 * 8 + 3 * 4)
    head = 3 * (4 + 10)
    assert activation_bytes(page_point()) == 2 * (encoder + cross_kv + decoder + frontend + head)
    inputs = 3 * (5 * 4 + 8) + 3 * 8 + 3 * (7 * 4 + 8)
    assert activation_bytes(page_point()) - activation_bytes(page_point(16, 8)) == inputs


def test_halving_weight_bits_halves_the_linear_bops() -> None:
    assert _linear_bops(8) == (384 + 192 + 480) * 8 * 8
    assert _linear_bops(4) * 2 == _linear_bops(8)
    assert _linear_bops(2) * 2 == _linear_bops(4)


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_fewer_bits_cost_less(build: Callable[[], SpeechModel]) -> None:
    speech = build()

    def cost(weight_bits: int, activation_bits: int, kv_bits: int) -> tuple[int, int, int]:
        bits = uniform_bits(speech.graph, weight_bits, activation_bits)
        point = point_of(speech, bits=bits, kv_bits=kv_bits)
        return sum(memory_io(point).values()), total_bops(products(point)), activation_bytes(point)

    by_weight = [cost(bits, 16, 16) for bits in BITS]
    by_activation = [cost(4, bits, 16) for bits in BITS]
    by_cache = [cost(4, 8, bits) for bits in BITS]
    for lower, higher in pairwise(by_weight):
        assert lower[0] < higher[0]
        assert lower[1] < higher[1]
    for lower, higher in pairwise(by_activation):
        assert lower[0] == higher[0]
        assert lower[1] < higher[1]
        assert lower[2] < higher[2]
    for lower, higher in pairwise(by_cache):
        assert lower[0] < higher[0]
        assert lower[1] < higher[1]


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_unlisted_linears_cost_as_much_as_16_bit_ones(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    listed = point_of(speech, bits=uniform_bits(speech.graph, 16, 16))
    assert memory_io(listed) == memory_io(point_of(speech))
    assert products(listed) == products(point_of(speech))


def test_quantizing_one_component_changes_that_component_only() -> None:
    speech = tiny_whisper()
    everything = uniform_bits(speech.graph, 4, 16)
    crossing = {x.path: everything[x.path] for x in speech.graph.linears if x.component is Component.CROSS_ATTENTION}
    before, after = memory_io(point_of(speech)), memory_io(point_of(speech, bits=crossing))
    assert {part for part in before if before[part] != after[part]} == {"cross_attention"}


def test_whisper_reads_a_token_and_a_position_row_and_keeps_its_window() -> None:
    speech = tiny_whisper()  # d = 64, window of 100 frames, prompt of 2
    short, long = point_of(speech, seconds=0.5, tokens=5), point_of(speech, seconds=2.0, tokens=5)
    assert memory_io(short)["embedding"] == 2 * (2 + 5) * (64 + 64)
    assert short.frames == long.frames == 100
    assert memory_io(short) == memory_io(long)
    assert products(short) == products(long)


def test_moonshine_costs_follow_the_length() -> None:
    speech = tiny_moonshine()
    short, long = point_of(speech, seconds=0.5), point_of(speech, seconds=2.0)
    assert short.frames < long.frames
    assert total_macs(products(short)) < total_macs(products(long))
    assert memory_io(short)["kv_cache"] < memory_io(long)["kv_cache"]
