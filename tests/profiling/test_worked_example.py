"""The page ``src/profiling/README.md``: every line's arithmetic holds, and its results are the code's."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.models.families import dimensions_of
from src.models.loading import load, load_config, load_graph
from src.profiling.cost_model import CostModel, LinearBits, Workload
from src.profiling.decoded import breakdowns
from src.profiling.energy import energy
from src.profiling.point_profile import parameter_count, stored_bytes
from src.profiling.roofline import roofline
from src.profiling.steps import steps
from src.profiling.streaming import streaming
from src.project import ROOT
from src.quant.checkpoint import leftover_tensors, save_weights
from src.stages.reference import linear_bits
from tests.composed import composed

PAGE = (ROOT / "src" / "profiling" / "README.md").read_text(encoding="utf-8")
PROMPTS = {"whisper-tiny": 4, "moonshine-tiny": 1, "moonshine-streaming-tiny": 1}
PARAMETERS = {"whisper-tiny": 37_760_640, "moonshine-tiny": 27_092_736}  # of the published checkpoints
_LINE = re.compile(r"(\w+) += (.*?)(?: = ([\d,]+))?(?:    \(.*\))?")
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(node: ast.expr, names: dict[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.Name):
        return names[node.id]
    assert isinstance(node, ast.Constant)
    return float(node.value)  # type: ignore[arg-type]


def _calculated(section: str) -> dict[str, dict[str, float]]:
    """Values by name, for every block of a section, under the first word above it; names outlive their block."""
    names: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {}
    for title, block in re.findall(r"(\w+)[^\n]*:\n\n```\n(.*?)```", section, flags=re.DOTALL):
        own = found.setdefault(title, {})
        for line in block.splitlines():
            match = _LINE.fullmatch(line)
            assert match, f"no arithmetic: {line}"
            name, expression, shown = match.groups()
            value = _value(ast.parse(expression, mode="eval").body, names)
            assert int(value) == int((shown or expression).replace(",", "")), line
            own[name] = names[name] = value
            if title == "MACs":
                names[f"{name}_macs"] = value
    return found


def _section(name: str) -> str:
    return next(part for part in PAGE.split("\n## ") if part.startswith((f"{name}\n", f"{name},", f"{name} ")))


def _point(name: str) -> CostModel:
    settings = composed(f"model={name.replace('-', '_')}", "model.random_weights=true").model
    graph = load_graph(settings)
    bits = {
        each.path: LinearBits(WeightSpec(4, -1, False).stored_bytes(each.out_features, each.in_features), 4, 8)
        for each in graph.linears
    }
    return CostModel(dimensions_of(load_config(settings)), graph, Workload(5.0, 20, PROMPTS[name]), bits, kv_bits=8)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_pages_results_are_the_codes(name: str) -> None:
    found, point = _calculated(_section(name)), _point(name)
    costs, each_step = breakdowns(point), steps(point)
    for title, figure in (("MACs", "macs"), ("BOPs", "bops"), ("memory", "memory_io")):
        block = found[title if title != "memory" else "Bytes"]
        phases = costs[f"{figure}_phases"]
        assert {phase: block[phase] for phase in phases} == phases
        assert block["total"] == sum(phases.values())
    assert found["MACs"]["frontend"] == costs["macs_breakdown"]["frontend"]
    assert 21 * found["MACs"]["head"] == costs["macs_breakdown"]["head"]
    assert found["MACs"].get("frames", 1500) == point.frames
    assert (found["Bytes"]["step_1"], found["Bytes"]["step_20"]) == (
        each_step.memory_io_bytes[0],
        each_step.memory_io_bytes[-1],
    )
    assert found["Bytes"]["stored"] == sum(stored_bytes(point).values())
    assert parameter_count(point) == PARAMETERS[name]


def test_the_pages_results_without_a_decoder_are_the_codes() -> None:
    settings = composed("model=parakeet_ctc_0_6b", "model.random_weights=true").model
    point = CostModel(dimensions_of(load_config(settings)), load_graph(settings), Workload(5.0, 20, 0), {})
    found, costs = _calculated(_section("parakeet-ctc-0.6b"))["MACs"], breakdowns(point)
    assert {part: found[part] for part in ("frontend", "encoder", "head")} == costs["macs_breakdown"]
    assert {"encoder": found["total"]} == costs["macs_phases"]
    assert costs["memory_io_phases"] == {"encoder": 2 * 608_750_593}
    assert parameter_count(point) == 608_750_593
    assert steps(point).macs == ()


def test_the_pages_roofline_is_the_codes() -> None:
    estimate = roofline(_point("whisper-tiny"), composed("edge_device=raspberry_pi_5").edge_device)
    assert estimate is not None
    (found,) = _calculated(_section("From there")).values()
    whisper = _calculated(_section("whisper-tiny"))
    assert found["memory"] == whisper["Bytes"]["step_20"] / 17.07
    per_token = whisper["MACs"]
    assert found["integers"] == 2 * per_token["row"] / 614.4
    assert found["halves"] == 2 * (per_token["pair"] * (24 + 1500) + per_token["head"]) / 307.2
    decode = estimate.phases["decode"]
    assert decode.memory_ms == pytest.approx(whisper["Bytes"]["decode"] / 17.07e6)
    halves = per_token["pair"] * (per_token["attended"] + 20 * 1500) + 20 * per_token["head"]
    assert decode.compute_ms == pytest.approx(2 * (20 * per_token["row"] / 614.4e6 + halves / 307.2e6))
    assert decode.bound == "memory"
    assert estimate.phases["encoder"].bound == "compute"


@pytest.mark.parametrize(("name", "device"), [("whisper-tiny", "stm32n6"), ("moonshine-tiny", "raspberry_pi_5")])
def test_the_pages_energy_is_the_codes(name: str, device: str) -> None:
    found = _calculated(_section(name))["Energy"]
    estimate = energy(_point(name), composed(f"edge_device={device}").edge_device)
    assert estimate is not None
    assert {tier: found[tier] for tier in estimate.tiers} == {
        tier: use.moved_bytes for tier, use in estimate.tiers.items()
    }
    assert (found["int8"], found["halves"]) == (estimate.macs["int8"], estimate.macs["float16"])
    assert found["activity"] == pytest.approx(1e9 * estimate.breakdown["activations"])
    assert found["joules"] == pytest.approx(1e9 * estimate.joules)
    assert estimate.joules_an_hour == pytest.approx(720 * estimate.joules)  # utterances of 5 seconds
    share = re.search(rf"(\d+) % of them for reading (?:the )?{estimate.dominant}", _section(name), re.IGNORECASE)
    assert share
    assert round(100 * estimate.dominant_share) == int(share[1])


def test_the_pages_stream_is_the_codes() -> None:
    found = _calculated(_section("moonshine-streaming-tiny"))
    stream = streaming(_point("moonshine-streaming-tiny"), None)
    assert stream is not None
    assert found["MACs"]["second"] == stream.macs_a_second
    [chunk] = [each for each in stream.chunks if each.ms == 320]
    assert found["Bytes"]["chunk"] == chunk.memory_io_bytes
    assert (found["Bytes"]["lookahead"], found["Bytes"]["latency"]) == (stream.lookahead_ms, chunk.latency_ms)


def test_the_file_has_the_pages_bytes(tmp_path: Path) -> None:
    name = "moonshine-tiny"
    settings = composed("model=moonshine_tiny", "model.random_weights=true", "method=rtn", "bits=w4a8")
    speech = load(settings.model, "cpu", seed=0)
    quantizer: Any = Quantizer(speech, build_method(settings.method), settings)
    quantizer.run()
    path = tmp_path / "model.safetensors"
    save_weights(path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights))
    with path.open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    assert path.stat().st_size == header + _calculated(_section(name))["Bytes"]["stored"]
    assert linear_bits(quantizer.rows, input_bits(speech.graph, settings)) == dict(_point(name).bits)
