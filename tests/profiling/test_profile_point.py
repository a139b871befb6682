"""A profile adds up, carries its units, and is valid JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from src.profiling.cost_model import LinearBits
from src.profiling.point_profile import PointProfile, profile_point
from src.profiling.steps import Steps
from tests.profiling.profiling_points import page_point, point_of, uniform_bits
from tests.tiny import tiny_whisper


def _profile(weight_bits: int, activation_bits: int = 16) -> PointProfile:
    return profile_point(page_point(weight_bits, activation_bits), disk_bytes=1234)


def test_parameters_and_bits_by_hand() -> None:
    profile = _profile(4)
    linears, others = 128 + 160 + 64, 848 + 24 + 36 + 40  # front-end, encoder and decoder vectors, embedding
    assert profile.parameters == linears + others
    assert profile.quantized_parameters == linears
    # codes 4 bits; 3 bytes for each of 16+8+4 (encoder), 16+16+4 (decoder), 16 (cross) output channels
    stored = linears // 2 + 3 * (28 + 36 + 16)
    assert profile.bits_per_weight == pytest.approx(8 * stored / linears)
    assert profile.model_bits_per_weight == pytest.approx((8 * stored + 16 * others) / (linears + others))


@pytest.mark.parametrize("activation_bits", [8, 16])
def test_without_weight_quantization_a_weight_has_16_bits(activation_bits: int) -> None:
    profile = _profile(16, activation_bits)
    assert profile.quantized_parameters == 0
    assert profile.bits_per_weight == profile.model_bits_per_weight == 16.0


def test_breakdowns_add_up() -> None:
    profile = _profile(3)
    assert sum(profile.memory_io_breakdown.values()) == profile.memory_io_bytes
    assert sum(profile.memory_io_phases.values()) == profile.memory_io_bytes
    assert sum(profile.parameter_breakdown.values()) == profile.parameter_bytes
    assert sum(profile.macs_breakdown.values()) == sum(profile.macs_phases.values()) == profile.macs
    assert sum(profile.bops_breakdown.values()) == sum(profile.bops_phases.values()) == profile.bops


def test_what_was_given_is_reported() -> None:
    profile = _profile(4)
    assert profile.disk_bytes == 1234
    assert (profile.frames, profile.tokens) == (3, 2)


def test_profile_survives_json() -> None:
    profile = _profile(4)
    fields = json.loads(json.dumps(dataclasses.asdict(profile)))
    steps = Steps(**{name: tuple(values) for name, values in fields["steps"].items()})
    assert PointProfile(**{**fields, "steps": steps}) == profile


def test_only_quantized_linears_count_towards_bits_per_weight() -> None:
    speech = tiny_whisper()
    path, bits = next(iter(uniform_bits(speech.graph, 4, 16).items()))
    profile = profile_point(point_of(speech, bits={path: bits}), disk_bytes=0)
    assert profile.quantized_parameters == 64 * 64
    assert profile.bits_per_weight == 4 + 8 * 3 / 64
    exact = LinearBits(64 * 64 // 2, 4, 16)
    profile = profile_point(point_of(speech, bits={path: exact}), disk_bytes=0)
    assert profile.bits_per_weight == 4.0
