"""The roofline by hand on the page's Moonshine, and the devices of ``conf/edge_device``."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from src.errors import UserError
from src.profiling.cost_model import CostModel, Workload
from src.profiling.roofline import roofline
from src.project import ROOT
from src.settings import EdgeDeviceSettings
from tests.composed import composed
from tests.profiling.profiling_points import THREE_FRAMES, page_point

DEVICES = sorted(path.stem for path in (ROOT / "conf" / "edge_device").glob("*.yaml"))


def _device(bandwidth: float, **gops: float) -> EdgeDeviceSettings:
    return EdgeDeviceSettings.model_validate({"name": "page", "bandwidth_gb_s": bandwidth, "gops": gops})


def test_a_phase_takes_the_longer_of_its_two_times() -> None:
    # 1 byte and 4 operations a nanosecond: encoder 2,000 bytes, 15,012 MACs; prefill 264 MACs, 624 bytes
    found = roofline(page_point(), _device(1.0, float32=8.0, float16=4.0))
    assert found is not None
    encoder, prefill = found.phases["encoder"], found.phases["prefill"]
    assert (encoder.memory_ms, encoder.compute_ms) == pytest.approx((2000e-6, 2 * 15_012 / 4 * 1e-6))
    assert (encoder.bound, encoder.ms) == ("compute", encoder.compute_ms)
    assert (prefill.memory_ms, prefill.compute_ms) == pytest.approx((624e-6, 2 * 264 / 4 * 1e-6))
    assert (prefill.bound, prefill.ms) == ("memory", prefill.memory_ms)
    assert found.ms == pytest.approx(sum(phase.ms for phase in found.phases.values()))
    decode = 2 * (536 + 8 + 48) + 48 + 64
    assert found.token_ms == pytest.approx(decode / 2 * 1e-6)
    assert found.tokens_per_second == pytest.approx(2 * 1e9 / decode)
    assert found.rtf == pytest.approx(found.ms / 1000 / THREE_FRAMES)
    assert found.notes == ()


def _compute(point: CostModel, **gops: float) -> float:
    found = roofline(point, _device(1e9, **gops))
    assert found is not None
    return sum(phase.compute_ms for phase in found.phases.values())


def test_integers_are_used_where_both_operands_are_narrow() -> None:
    rates = {"float32": 1.0, "float16": 1.0}
    # 384 encoder, 480 decoder and 192 cross-attention MACs have 8-bit activations
    saved = 2 * (384 + 480 + 192) * 1e-6
    plain = _compute(page_point(4, 16), **rates, int8=1e9)
    assert plain == pytest.approx(_compute(page_point(4, 16), **rates))
    assert plain - _compute(page_point(4, 8), **rates, int8=1e9) == pytest.approx(saved)
    assert plain - _compute(page_point(4, 4), **rates, int4=1e9) == pytest.approx(saved)


def test_what_the_device_lacks_runs_in_the_next_wider_arithmetic_and_is_told() -> None:
    found = roofline(page_point(4, 4), _device(1.0, float32=1.0, int8=4.0))
    assert found is not None
    assert found.notes == (
        "4-bit products run in int8: page states no rate for int4",
        "16-bit products run in float32: page states no rate for float16",
    )


def test_a_batch_decodes_more_tokens_in_the_time_of_its_weights() -> None:
    device = _device(1.0, float32=1e6)
    one, four = (
        roofline(dataclasses.replace(page_point(), workload=Workload(THREE_FRAMES, 2, 1, batch)), device)
        for batch in (1, 4)
    )
    assert one is not None
    assert four is not None
    assert one.tokens_per_second < four.tokens_per_second < 4 * one.tokens_per_second  # type: ignore[operator]
    assert four.rtf < one.rtf


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_composes_cites_its_source_and_estimates(name: str) -> None:
    device = composed(f"edge_device={name}").edge_device
    assert device.name == name
    found = roofline(page_point(4, 8), device)
    if name == "none":
        assert found is None
        return
    assert found is not None
    assert json.loads(json.dumps(dataclasses.asdict(found)))["device"] == name
    assert device.gops["float32"] <= device.gops["int8"]
    text = (ROOT / "conf" / "edge_device" / f"{name}.yaml").read_text(encoding="utf-8")
    assert "https://" in text
    figures = [line for line in text.splitlines() if re.match(r" *\w+: \d", line)]
    assert all("  # " in line for line in figures)
    assert {line.split(":")[0].strip() for line in figures} >= {"bandwidth_gb_s", *device.gops, "pj_per_byte"}


def test_a_device_without_float32_is_refused() -> None:
    with pytest.raises(UserError, match=r"edge_device\.gops.*float32"):
        composed("edge_device=stm32n6", "~edge_device.gops.float32")


def test_only_the_profile_depends_on_the_device_and_the_batch() -> None:
    from src.stages.point import open_point

    changes = ("edge_device=none", "profile.batch=4", "profile.beams=5")
    points = [open_point(composed("tracking=none", *each)) for each in ((), changes)]
    for name in ("calibration", "quantized", "transcripts", "evaluation", "latency", "decoded_cost"):
        assert getattr(points[0], name).fingerprint == getattr(points[1], name).fingerprint
    assert points[0].profile.fingerprint != points[1].profile.fingerprint
