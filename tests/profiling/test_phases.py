"""Bytes and products by phase and step, of batches and beams, by hand on the Moonshine of ``profiling_points``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from src.models.speech import SpeechModel
from src.profiling.bitops import by_phase, decoder_products, encoder_products, products, total_bops, total_macs
from src.profiling.cost_model import CostModel, Workload
from src.profiling.latency import noise
from src.profiling.memory_io import activation_bytes, memory_io, memory_io_phases
from src.profiling.passes import decode_step
from src.profiling.steps import steps
from tests.profiling.profiling_points import THREE_FRAMES, page_point, point_of
from tests.tiny import tiny_moonshine, tiny_whisper


def _with(batch: int, beams: int, tokens: int = 2, kv_bits: int = 16) -> CostModel:
    return replace(page_point(kv_bits=kv_bits), workload=Workload(THREE_FRAMES, tokens, 1, batch, beams))


def _macs(point: CostModel) -> dict[str, int]:
    return by_phase(products(point), lambda product: product.macs)


def test_bytes_by_phase_by_hand() -> None:
    # what a pass reads: decoder 160 + 32, q o and their norm 36, head 40, in 16 bits
    a_pass = 2 * (192 + 36 + 40)
    # keys and values of a position: 16 bytes; 3 frames
    assert memory_io_phases(page_point()) == {
        "encoder": 2 * (848 + 152),
        "cross_kv": 2 * 32 + 16 * 3,
        "prefill": a_pass + 2 * 4 + 16 * 3 + 16 * (1 + 1),
        "decode": 2 * (a_pass + 2 * 4 + 16 * 3) + 16 * (1 + 2) + 16 * (1 + 3),
    }


def test_steps_by_hand() -> None:
    found = steps(page_point())
    a_step = 2 * (192 + 36 + 40) + 2 * 4 + 16 * 3
    assert found.memory_io_bytes == (a_step + 16 * (1 + 2), a_step + 16 * (1 + 3))
    assert found.macs == (160 + 32 + 24 + 40 + 8 * 2, 160 + 32 + 24 + 40 + 8 * 3)


@pytest.mark.parametrize("key_group", [None, 2])
def test_steps_add_up_to_the_decode_phase(key_group: int | None) -> None:
    point = replace(_with(batch=2, beams=3, tokens=6, kv_bits=4), key_group=key_group)
    found = steps(point)
    assert sum(found.memory_io_bytes) == memory_io_phases(point)["decode"]
    assert sum(found.macs) == _macs(point)["decode"]
    assert sum(found.bops) == by_phase(products(point), lambda product: product.bops)["decode"]


def test_components_and_phases_add_up_to_the_same_bytes() -> None:
    for point in (page_point(3, 8, 4), _with(2, 3), replace(page_point(kv_bits=4), key_group=2)):
        assert sum(memory_io(point).values()) == sum(memory_io_phases(point).values())


def test_no_token_is_no_step() -> None:
    point = _with(1, 1, tokens=0)
    assert "decode" not in memory_io_phases(point)
    assert steps(point).macs == ()


def test_a_batch_multiplies_products_and_caches_and_reads_weights_once() -> None:
    one, four = _with(1, 1), _with(4, 1)
    assert total_macs(products(four)) == 4 * total_macs(products(one))
    assert total_bops(products(four)) == 4 * total_bops(products(one))
    alone, together = memory_io(one), memory_io(four)
    assert {name for name in alone if alone[name] != together[name]} == {"kv_cache", "embedding"}
    assert together["kv_cache"] == 4 * alone["kv_cache"]
    assert together["embedding"] == 4 * alone["embedding"]
    assert activation_bytes(four) == 4 * activation_bytes(one)


def test_beams_multiply_the_steps_and_share_the_cross_attentions_cache() -> None:
    one, five = _with(1, 1), _with(1, 5)
    assert _macs(five) == {**_macs(one), "decode": 5 * _macs(one)["decode"]}
    # self-attention: the prompt once (1 write, 1 read), then 2 writes and 2 + 3 reads a hypothesis
    assert memory_io(five)["kv_cache"] == 16 * (3 * 4) + 16 * (1 + 1) + 16 * 5 * (2 + 5)
    assert memory_io(five)["embedding"] == 2 * 4 * (1 + 5 * 2)


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_a_batch_counts_what_torch_counts(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    speech.module.set_attn_implementation("eager")
    point = point_of(speech)
    point = replace(point, workload=replace(point.workload, batch=3))

    def counted(call: Callable[[], object]) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() // 2

    features = speech.features([noise(point.workload.seconds, speech.sampling_rate, seed=0)] * 3)
    assert counted(lambda: speech.encode(features)) == total_macs(encoder_products(point))
    encoded, cache = speech.encode(features), speech.new_cache()
    speech.decode_step(torch.tensor([speech.prompt] * 3), encoded, cache)
    step = counted(lambda: speech.decode_step(torch.tensor([[3]] * 3), encoded, cache))
    assert step == total_macs(decoder_products(point, [decode_step(point, 1)]))
