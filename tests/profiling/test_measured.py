"""Runtimes timed side by side: the bytes that a step reads in each, the rows a user sees, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.errors import UserError
from src.export.build import build_runtime
from src.export.onnx_codes import blocked_bytes
from src.lowbit.granularity import WeightSpec
from src.models.families import dimensions_of
from src.models.loading import load_config, load_graph
from src.profiling.cost_model import CostModel, Workload
from src.profiling.measured import build_row, step_bytes
from src.profiling.measured_table import COLUMNS
from src.profiling.reference import Times
from src.profiling.runtimes.bandwidth import measure as measure_bandwidth
from src.profiling.runtimes.job import Measurement, summarize
from src.project import ROOT
from src.runtimes.folder import PACKAGES
from src.stages import timed
from src.stages.measure import Measure
from src.stages.point import open_point
from tests import commands
from tests.composed import composed

PROMPT, TOKENS = 4, 20


def cost(model: str) -> CostModel:
    settings = composed(f"model={model}", "model.random_weights=true").model
    work = Workload(5.0, TOKENS, PROMPT)
    return CostModel(dimensions_of(load_config(settings)), load_graph(settings), work, {})


def test_a_float32_step_of_whisper_small_reads_what_its_shape_says() -> None:
    """By hand: 12 blocks of 14 d^2 weights, the head, two caches of 1500 frames, and those of the tokens so far."""
    d, layers, vocabulary, frames = 768, 12, 51865, 1500
    runtime = build_runtime(composed("export=onnx", "export.weights=float32").export)
    weights, head, cross = 4 * layers * 14 * d * d, 4 * vocabulary * d, 4 * layers * 2 * frames * d
    own = 4 * layers * 2 * d * (PROMPT + (TOKENS + 1) / 2 + 1)  # positions read on average, and the one written
    rest = 4 * layers * 16 * d  # norms, biases, positions: at most
    found = step_bytes(cost("whisper_small"), "onnx", runtime, {})
    assert weights + head + cross + own <= found <= weights + head + cross + own + rest
    assert 660e6 < found < 680e6


def test_codes_read_their_blocks_scales_and_zero_points() -> None:
    per_block = {4: 16 + 4, 8: 32 + 4}  # codes of 32 columns, and a float32 scale
    for bits, size in per_block.items():
        symmetric = blocked_bytes(6, 64, WeightSpec(bits, 32, symmetric=True))
        assert symmetric == 6 * 2 * size
        assert blocked_bytes(6, 64, WeightSpec(bits, 32, symmetric=False)) == symmetric + 6 * 2 * bits // 8
    assert blocked_bytes(6, 64, WeightSpec(3, -1, symmetric=True)) == 6 * (2 * per_block[4] + 1)  # zero is not 8


def test_whisper_cpp_keeps_its_caches_in_half_the_bytes() -> None:
    point = cost("whisper_tiny")
    runtime = build_runtime(composed("export=ggml", "export.weights=q8_0").export)
    spec = WeightSpec(8, 32, symmetric=True)
    specs = {each.path: spec for each in (*point.graph.linears, *point.ends)}
    halves = step_bytes(point, "whisper_cpp", runtime, specs)
    wholes = step_bytes(point, "onnx", runtime, specs)
    assert wholes - halves == pytest.approx(2 * 4 * 2 * 384 * (1500 + PROMPT + (TOKENS + 1) / 2 + 1), rel=1e-3)


def test_figures_follow_from_the_times() -> None:
    times = Times([10.0, 12.0, 11.0], [3.0, 3.0, 9.0], [1.0, 2.0, 2.0, 2.0], [17.0, 19.0, 24.0])
    figures = summarize(times, seconds=2.0)
    assert (figures["encoder_ms"], figures["first_token_ms"], figures["token_ms"]) == (11.0, 3.0, 2.0)
    assert figures["rtf"] == pytest.approx(0.019 / 2)
    told = Measurement(load_ms=None, **figures, peak_rss_mib=1.0, threads=2, device="x", version="1")
    row = build_row("onnx", "float32", 1, 40_000_000, told, limit_gbs=40.0)
    assert (row.bandwidth_gbs, row.bandwidth_share) == (pytest.approx(20.0), pytest.approx(0.5))


def test_the_memory_gives_more_than_a_disk_and_less_than_a_cache() -> None:
    found = measure_bandwidth(1)
    assert 0.1 < float(found["read_gbs"]) < 2000
    assert 0.1 < float(found["copy_gbs"]) < 2000


def test_a_process_that_measures_onnx_knows_nothing_of_torch() -> None:
    script = (
        "import sys, src.profiling.runtimes.worker, src.profiling.runtimes.onnx_engine; print('torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


def test_runtimes_do_not_change_what_a_point_is(tmp_path: Path) -> None:
    plain, more = (
        open_point(composed(f"output_dir={tmp_path}", f"profile.runtimes={names}")) for names in ("[]", "[torch,onnx]")
    )
    assert plain.fingerprint == more.fingerprint
    assert not Measure().wanted(plain)
    assert Measure().wanted(more)


def test_at_full_precision_onnx_is_measured_once(tmp_path: Path) -> None:
    point = open_point(composed("method=fp", f"output_dir={tmp_path}", "profile.runtimes=[onnx_float32,onnx,torch]"))
    assert [each.engine for each in timed.timed(point)] == ["onnx", "torch"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["profile.runtimes=[whisper_cpp]"], ["whisper_cpp", "moonshine"]),
        (["profile.runtimes=[onnx]", "kvbits=4"], ["onnx", "key-value cache", "kvbits=16"]),
        (["profile.runtimes=[onnx]", "bits=w4a8", "group_size=32"], ["groups of 32", "profile.onnx.weights=codes"]),
    ],
)
def test_what_cannot_be_measured_is_refused_first(asked: list[str], told: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^profile\.runtimes: ") as caught:
        Measure().check(open_point(composed(f"output_dir={tmp_path}", *asked)))
    for words in told:
        assert words in str(caught.value)


def test_a_runtime_that_is_not_installed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "onnx", ("no_such_runtime",))
    point = open_point(composed(f"output_dir={tmp_path}", "profile.runtimes=[onnx]"))
    with pytest.raises(UserError, match=r"onnx needs no_such_runtime.*pip install -e '\.\[export\]'"):
        Measure().check(point)


def test_the_command_ends_with_one_table_of_runtimes(tmp_path: Path) -> None:
    asked = ["model=sandbox_whisper", "method=rtn", "bits=w4a16", "symmetric=true", "group_size=32", "head_bits=4"]
    few = [
        "profile.onnx.accuracy_level=4",
        "profile.repeats=1",
        "profile.tokens=2",
        "profile.threads=1",
        "profile.max_load=1000",
        "profile.whisper_cpp.weights=q4_0",
    ]
    where = ["stages=[quantize,profile]", "tracking=none", f"output_dir={tmp_path}"]
    process = commands.run("src.main", *asked, *few, *where, "profile.runtimes=[torch,onnx_float32,onnx]")
    assert process.returncode == 0, process.stderr
    for name in (*COLUMNS, "torch", "float32", "w4syma16h4g32 codes, level 4", "Memory:", "batch 1"):
        assert name in process.stdout
    [path] = (tmp_path / "records").glob("*.json")
    measured = json.loads(path.read_text())["measured"]["runtimes"]
    assert [row["runtime"] for row in measured["rows"]] == ["torch", "onnx", "onnx"]
    torch, dense, codes = measured["rows"]
    assert torch["step_bytes"] == dense["step_bytes"] > codes["step_bytes"]
    assert codes["file_bytes"] < dense["file_bytes"]
    assert torch["measurement"]["peak_rss_mib"] > dense["measurement"]["peak_rss_mib"] > 20  # a process of its own
    for row in measured["rows"]:
        told = row["measurement"]
        assert 0 < told["token_ms"] <= told["token_p95_ms"]
        assert told["encoder_ms"] > 0
        assert told["load_ms"] > 0
        assert told["threads"] == 1
