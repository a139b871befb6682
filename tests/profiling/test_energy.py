"""Memories are filled by the rule, what moves in them is the memory I/O, and joules follow by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from src.errors import UserError
from src.models.graph import Component
from src.profiling.bitops import products, total_macs
from src.profiling.cost_model import CostModel, LinearBits, Workload
from src.profiling.energy import energy
from src.profiling.memory_io import activation_bytes, memory_io
from src.profiling.point_profile import parameter_count, stored_bytes
from src.profiling.tiers import placed, things
from src.settings import EdgeDeviceSettings
from tests.composed import composed
from tests.profiling.profiling_points import THREE_FRAMES, page_point, point_of, uniform_bits
from tests.tiny import tiny_moonshine, tiny_whisper
from tests.tiny.moonshine_streaming import tiny_streaming

HELD = {"on_chip": (480, 1.0), "dram": (1e6, 10.0)}  # bytes, picojoules a byte


def _device(memory: dict[str, tuple[float, float]], **changes: Any) -> EdgeDeviceSettings:
    tiers = {name: {"capacity_mb": size / 1e6, "pj_per_byte": cost} for name, (size, cost) in memory.items()}
    told = {"name": "page", "bandwidth_gb_s": 1.0, "gops": {"float32": 1.0}, "pj_per_mac": {"float32": 2.0}}
    return EdgeDeviceSettings.model_validate({**told, "memory": tiers, **changes})


def _points() -> Iterator[CostModel]:
    yield page_point()
    yield page_point(4, 8, 4)
    yield replace(page_point(kv_bits=4), key_group=2)
    yield replace(page_point(4), workload=Workload(THREE_FRAMES, 2, 1, batch=2, beams=3))
    for speech in (tiny_whisper(), tiny_moonshine(), tiny_streaming()):
        yield point_of(speech, bits=uniform_bits(speech.graph, 4, 8), kv_bits=8)


def test_the_page_by_hand() -> None:
    """3 passes over the decoder's weights, a cross-attention cache that is written once and read by each."""
    found = energy(page_point(), _device(HELD))
    assert found is not None
    # of 480 bytes: the cross-attention's cache (3 frames of 16 bytes, moved 4 times); the embedding, which is the head
    # too (10 x 4, read 3 times and 3 of its rows); 3 times: vectors of 4 and 32 values, 6 linears of 4 x 4, no room for
    # a gated one of 16 x 4, and fc2 of 4 x 8. Nothing that is moved less often has 24 bytes
    moved = 4 * 48 + 3 * 80 + 3 * 8 + 3 * (8 + 64 + 6 * 32 + 64)
    on_chip = found.tiers["on_chip"]
    assert (on_chip.held_bytes, on_chip.moved_bytes) == (48 + 80 + 8 + 64 + 6 * 32 + 64, moved)
    assert on_chip.moved_breakdown == {
        "kv_cache": 4 * 48,
        "head": 3 * 80,
        "embedding": 3 * 8,
        "cross_attention": 3 * (8 + 2 * 32),
        "decoder": 3 * (64 + 4 * 32 + 64),
    }
    total = sum(memory_io(page_point()).values())
    assert found.tiers["dram"].moved_bytes == total - moved
    picojoules = {
        "on_chip": 1.0 * moved,
        "dram": 10.0 * (total - moved),
        "activations": 1.0 * activation_bytes(page_point()),
        "float32": 2.0 * 15_924,
    }
    assert found.breakdown == pytest.approx({name: 1e-12 * each for name, each in picojoules.items()}, abs=0)
    assert found.joules == pytest.approx(1e-12 * sum(picojoules.values()))
    assert (found.dominant, found.dominant_share) == ("float32", found.breakdown["float32"] / found.joules)
    assert found.joules_an_hour == pytest.approx(found.joules * 3600 / THREE_FRAMES)
    assert found.notes == ()


@pytest.mark.parametrize("point", _points(), ids=lambda _: "")
def test_what_moves_in_all_memories_is_the_memory_io(point: CostModel) -> None:
    found = energy(point, _device({"on_chip": (5000, 1.0), "dram": (20_000, 2.0), "flash": (1e6, 3.0)}))
    assert found is not None
    parts = dict.fromkeys((*(component.value for component in Component), "kv_cache"), 0)
    for use in found.tiers.values():
        assert use.moved_bytes == sum(use.moved_breakdown.values())
        for part, moved in use.moved_breakdown.items():
            parts[part] += moved
    assert parts == memory_io(point)
    assert sum(found.macs.values()) == total_macs(products(point))


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine, tiny_streaming])
def test_weights_take_the_bytes_of_the_stored_model(build: Any) -> None:
    speech = build()
    point = point_of(speech, bits=uniform_bits(speech.graph, 4, 8))
    weights = sum(thing.held for thing in things(point) if "kv_cache" not in thing.moved)
    assert weights == sum(stored_bytes(point).values())


def test_what_is_moved_most_often_per_byte_is_nearest() -> None:
    for point in _points():
        near, far = placed(point, _device({"on_chip": (5000, 1.0), "dram": (1e9, 2.0)}).memory).values()
        left = 5000 - sum(thing.held for thing in near)
        assert left >= 0
        rates = [thing.total / thing.held for thing in near]
        assert rates == sorted(rates, reverse=True)
        for thing in far:  # room was lacking when its turn came
            before = sum(each.held for each in near if each.total / each.held >= thing.total / thing.held)
            assert before + thing.held > 5000


def test_more_room_near_by_takes_no_more_energy() -> None:
    point = page_point(4, 8, 8)
    sizes = (1, 100, 300, 1000, 4000, 1e6)
    found = [energy(point, _device({"on_chip": (size, 1.0), "dram": (1e6, 10.0)})) for size in sizes]
    joules = [each.joules for each in found if each]
    assert joules == sorted(joules, reverse=True)
    assert joules[0] > 1.5 * joules[-1]


def test_caches_do_not_go_into_flash_which_takes_what_has_no_room_beside_them() -> None:
    device = _device({"dram": (100, 1.0), "flash": (5000, 1.0)})
    found = placed(page_point(), device.memory)
    assert [thing.what for thing in found["dram"] if thing.is_cache] == [
        "cross-attention cache of layer 0",
        "self-attention cache of layer 0",
    ]
    assert sum(thing.held for thing in found["dram"]) <= 100  # two caches of 48 bytes, whose room no weight took
    estimate = energy(page_point(), device)
    assert estimate is not None
    assert estimate.notes == ()


def test_what_fits_nowhere_is_counted_in_the_farthest_memory_and_told() -> None:
    estimate = energy(page_point(), _device({"dram": (90, 1.0), "flash": (1000, 1.0)}))
    assert estimate is not None
    weights = 2 * parameter_count(page_point())
    assert estimate.notes == (
        "9.6e-05 MB are counted in dram, and page has 9e-05 MB",
        f"{weights / 1e6:.3g} MB are counted in flash, and page has 0.001 MB",
    )


def test_a_batch_shares_the_energy_of_its_weights() -> None:
    one, four = (
        energy(replace(page_point(), workload=Workload(THREE_FRAMES, 2, 1, batch)), _device(HELD)) for batch in (1, 4)
    )
    assert one is not None
    assert four is not None
    assert four.joules < one.joules
    assert four.macs["float32"] == 4 * one.macs["float32"]


def test_narrow_products_take_the_energy_of_the_arithmetic_they_run_in() -> None:
    rates, energies = {"float32": 1.0, "int8": 4.0}, {"float32": 2.0, "int8": 0.1}
    found = energy(page_point(4, 8, 8), _device(HELD, gops=rates, pj_per_mac=energies))
    assert found is not None
    assert found.macs == {"int8": 384 + 480 + 192, "float32": 15_924 - 384 - 480 - 192}


def test_outliers_and_head_are_placed_where_they_are_stored() -> None:
    point = page_point()
    tied = replace(point, bits={"model.decoder.embed_tokens": LinearBits(45, 4, 16)})
    [head] = [thing for thing in things(tied) if "head" in thing.moved]
    assert (head.held, head.moved) == (45, {"head": 3 * 45, "embedding": 3 * 5})


def test_devices_without_energies_have_no_estimate() -> None:
    bare = EdgeDeviceSettings.model_validate({"name": "bare", "bandwidth_gb_s": 1.0, "gops": {"float32": 1.0}})
    assert energy(page_point(), bare) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("~edge_device.pj_per_mac", "needs memory and pj_per_mac; give both or neither"),
        ("~edge_device.memory", "needs memory and pj_per_mac; give both or neither"),
        ("~edge_device.pj_per_mac.int8", "gops has rates of float32, float16, int8; give the energy of these"),
        ("edge_device.memory.dram.pj_per_byte=0", "greater than 0"),
        ("+edge_device.memory.tape={capacity_mb: 1, pj_per_byte: 1}", "'on_chip', 'dram' or 'flash'"),
    ],
)
def test_a_device_that_tells_half_of_it_is_refused(change: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"edge_device\.(memory|pj_per_mac).*{told}"):
        composed("edge_device=raspberry_pi_5", change)


def test_a_device_of_flash_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"edge_device\.memory.*cache would be nowhere"):
        composed("edge_device=stm32n6", "~edge_device.memory.on_chip", "~edge_device.memory.dram")
