"""A test set decoded in the runtime that ships: the real command line, on the sandbox."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from src.data.transcripts import load_transcripts
from src.errors import UserError
from src.project import ROOT
from src.runs.pipeline import check
from src.runtimes.folder import PACKAGES
from src.stages import ALL_STAGES
from src.stages.decoding import speed
from src.stages.evaluate import Evaluate
from src.stages.export import Export
from src.stages.point import Point, open_point
from src.stages.quantize import Quantize
from tests import commands
from tests.composed import composed

SMALL = (
    *("method=rtn", "wbits=4", "group_size=32", "dataset.limit=8"),
    *("evaluate.bootstrap_samples=200", "evaluate.probe_clips=0"),
)
STAGES = ("stages=[quantize,evaluate]", "tracking=none")


def ready(folder: Path, *overrides: str) -> Point:
    return open_point(composed(f"output_dir={folder}", *SMALL, *overrides))


def checked(folder: Path, *overrides: str) -> None:
    """What the pipeline checks before the first stage runs."""
    point = ready(folder, *overrides)
    check([stage for stage in ALL_STAGES if stage.wanted(point)], point)


def record(folder: Path) -> dict[str, Any]:
    [path] = (folder / "records").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_killed_run_in_onnxruntime_ends_as_an_unbroken_one_and_tells_what_it_cost(tmp_path: Path) -> None:
    asked = (*SMALL, "model=sandbox_moonshine", "evaluate.runtime=onnx", f"output_dir={tmp_path / 'broken'}")
    killed = commands.start("src.main", *asked, *STAGES, stderr=subprocess.DEVNULL)
    while len(journal(tmp_path / "broken")) < 4:  # its basis and three clips
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    decoded = journal(tmp_path / "broken")[1:4]
    done = commands.run("src.main", *asked, *STAGES)
    assert done.returncode == 0, done.stderr
    first, unbroken = record(tmp_path / "broken"), ready(tmp_path / "whole", "evaluate.runtime=onnx")
    assert first["results"]["evaluate"] == evaluated(unbroken)
    assert first["fingerprint"] == unbroken.fingerprint
    texts = [load_transcripts(each) for each in tmp_path.glob(f"*/cache/transcripts/{first['transcripts']}/*.jsonl")]
    assert texts[0] == texts[1]
    for line in decoded:
        [kept] = line["transcripts"]
        assert kept["hypothesis"] == next(item.hypothesis for item in texts[0] if item.id == kept["id"])
    scores = first["results"]["evaluate"]
    assert scores["changed_from_simulated"]["transcripts"] <= 1  # a near tie
    assert abs(scores["versus_simulated"]["difference"]) <= 2
    assert scores["wer"] == pytest.approx(scores["simulated_wer"] + scores["versus_simulated"]["difference"])
    files = first["results"]["export"]["files"]
    assert scores["exported_bytes"] == files["encoder.onnx"] + files["decoder.onnx"]
    assert first["runtime"] == "onnx codes, level 1"
    assert "w4a16g32 onnx codes, level 1" in done.stdout
    told = first["measured"]["evaluate"]
    assert told["runtime"]["name"] == "onnx"
    assert 20 < told["runtime"]["peak_rss_mib"] < 400  # a process of its own, without torch
    assert 0 < told["runtime"]["first_token_ms"] <= told["runtime"]["first_token_p95_ms"]
    assert told["seconds"]["total"] >= told["seconds"]["runtime"] > 0
    assert told["rtfx"] > 0


def evaluated(point: Point) -> dict[str, Any]:
    """What the stages make of it in this process."""
    for stage in (Quantize(), Export(), Evaluate()):
        stage.run(point)
    return Evaluate().result(point)


def journal(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of the journal of what is being transcribed."""
    lines: list[str] = []
    for path in (folder / "cache" / "transcripts").glob("*.partial/batches.progress"):
        lines += path.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line.partition(" ")[2]) for line in lines]


def test_whisper_cpp_writes_what_it_is_exported_for(tmp_path: Path) -> None:
    """It rounds inputs to 8 bits and the head to the blocks' 8, so that near ties may break otherwise."""
    asked = ("model=sandbox_whisper", "wbits=8", "symmetric=true", "evaluate.runtime=whisper_cpp", "dataset.limit=4")
    point = ready(tmp_path, *asked)
    scores = evaluated(point)
    assert scores["changed_from_simulated"]["transcripts"] <= 1
    assert scores["exported_bytes"] == Export().result(point)["files"]["ggml-model.bin"]
    assert point.settings.runtime_name == "whisper_cpp auto"
    assert speed(point)["runtime"]["first_token_ms"] > 0


def test_the_simulation_is_what_it_was(tmp_path: Path) -> None:
    """Results that users have stored stay theirs: keys tell of a runtime only where it is another than torch."""
    plain, onnx = ready(tmp_path), ready(tmp_path, "evaluate.runtime=onnx")
    for entry in (plain.transcripts, plain.evaluation):
        assert not {"runtime", "exported", "simulated"} & set(entry.key)
    assert onnx.simulated.fingerprint == plain.fingerprint
    assert onnx.baseline.fingerprint == plain.baseline.fingerprint
    assert onnx.quantized == plain.quantized
    assert onnx.transcripts != plain.transcripts
    assert onnx.label == plain.label.replace("-w4a16g32-", "-w4a16g32-onnx-")


def test_the_export_is_chosen_with_the_runtime(tmp_path: Path) -> None:
    """Naming it too is the same point; its options are another one."""
    implied, named, faster = (
        ready(tmp_path, "evaluate.runtime=onnx", *more)
        for more in ((), ("export=onnx",), ("export=onnx", "export.accuracy_level=4"))
    )
    assert implied.fingerprint == named.fingerprint != faster.fingerprint
    assert faster.settings.runtime_name == "onnx codes, level 4"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["evaluate.runtime=whisper_cpp"], ["evaluate.runtime", "sandbox_moonshine is a moonshine model", "onnx"]),
        (["evaluate.runtime=onnx", "export=ggml"], ["evaluate.runtime", "export=onnx", "evaluate.runtime=torch"]),
        (["evaluate.runtime=onnx", "kvbits=4"], ["evaluate.runtime", "key-value cache", "kvbits=16"]),
        (["evaluate.runtime=onnx", "dtype=bfloat16"], ["dtype", "'bfloat16'", "dtype=float32"]),
        (
            ["evaluate.runtime=whisper_cpp", "evaluate.window=clip", "model=sandbox_whisper"],
            ["evaluate.window", "evaluate.window=model"],
        ),
        (["evaluate.runtime=tflite"], ["evaluate.runtime", "'tflite'"]),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(asked: list[str], told: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        checked(tmp_path, *asked)
    for words in told:
        assert words in str(caught.value)


def test_a_runtime_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "onnx", ("no_such_runtime",))
    with pytest.raises(UserError, match=r"evaluate\.runtime: onnx needs no_such_runtime.*'\.\[export\]'"):
        checked(tmp_path, "evaluate.runtime=onnx")


@pytest.mark.parametrize("runtime", ["onnx", "whisper_cpp"])
def test_a_process_that_runs_a_model_knows_nothing_of_torch(runtime: str) -> None:
    script = f"import sys, src.runtimes.worker, src.runtimes.{runtime}_transcriber; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
