"""The main job end to end: the real command line in a subprocess, on the sandbox models and speech."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from src.project import ROOT
from src.runs.attempt import settle
from tests import commands
from tests.commands import environment
from tests.wandb_reader import read_runs

SMALL = (
    *("dataset.limit=12", "calib.n=6", "profile.repeats=2"),
    "profile.max_load=1000",  # other tests may run beside
    *("evaluate.bootstrap_samples=200", "evaluate.probe_clips=4"),  # one clip of each kind of sound
)

TO_BE_KILLED = ("method=gptq", "wbits=3", "evaluate.batch_size=2")


def command(output: Path, *overrides: str) -> list[str]:
    """The test's own overrides follow the common ones, as the last value of a key counts; flags precede all."""
    flags = [each for each in overrides if each.startswith("-")]
    own = [each for each in overrides if each not in flags]
    return commands.command("src.main", *flags, *SMALL, *own, f"output_dir={output}")


def run(output: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return commands.run(*command(output, *overrides)[2:])


def records(output: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (output / "records").glob("*.json")]
    return {f"{record['method']}-{record['bits']}": record for record in found}


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """A record without clocks and places."""
    places = ("times", "measured", "provenance", "settings", "sha256")
    return {key: value for key, value in record.items() if key not in places}


def entries(output: Path, stage: str) -> set[str]:
    return {path.name for path in (output / "cache" / stage).iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The README's sweep, made small."""
    output = tmp_path_factory.mktemp("sweep")
    return output, run(output, "-m", "method=rtn,gptq", "wbits=3,4")


def test_sweep_runs_four_points_through_all_stages(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, finished = sweep
    assert finished.returncode == 0, finished.stderr
    found = records(output)
    assert set(found) == {"rtn-w3a16", "rtn-w4a16", "gptq-w3a16", "gptq-w4a16"}
    for record in found.values():
        assert set(record["results"]) == {"calibrate", "quantize", "evaluate", "profile"}
        evaluated = record["results"]["evaluate"]
        assert evaluated["wer_low"] <= evaluated["wer"] <= evaluated["wer_high"]
        assert evaluated["utterances"] == 12
        difference = evaluated["versus_fp"]
        assert difference["difference"] == pytest.approx(evaluated["wer"] - evaluated["fp_wer"])
        assert record["subset"] == 12


def test_points_of_a_sweep_share_their_work(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, _ = sweep
    counts = {stage: len(entries(output, stage)) for stage in ("calibrate", "quantize", "transcripts", "latency")}
    assert counts == {"calibrate": 1, "quantize": 5, "transcripts": 5, "latency": 1}  # four points and fp


def test_records_tell_the_speed_and_where_the_time_went(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    for record in records(sweep[0]).values():
        speed = record["measured"]["evaluate"]
        seconds = speed["seconds"]
        assert set(seconds) == {"load_model", "audio", "features", "wait", "encode", "decode", "total"}
        audio = record["results"]["evaluate"]["audio_seconds"]
        assert speed["rtfx"] == pytest.approx(audio / seconds["total"], rel=0.01)


def test_half_precision_is_a_record_of_its_own_against_float32(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shutil.copytree(sweep[0] / "cache", tmp_path / "cache")
    finished = run(tmp_path, "method=rtn", "wbits=4", "dtype=bfloat16", "tracking=none")
    assert finished.returncode == 0, finished.stderr
    (half,) = records(tmp_path).values()
    single = records(sweep[0])["rtn-w4a16"]
    assert half["dtype"] == "bfloat16"
    assert half["fingerprint"] != single["fingerprint"]
    assert half["results"]["quantize"] == single["results"]["quantize"]
    assert half["results"]["evaluate"]["fp_wer"] == single["results"]["evaluate"]["fp_wer"]
    assert entries(tmp_path, "quantize") == entries(sweep[0], "quantize")


def test_fewer_bits_are_smaller_on_disk_and_in_memory_io(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, _ = sweep
    found = {name: record["results"] for name, record in records(output).items()}
    for name, results in found.items():
        folder = next(
            path
            for path in (output / "cache/quantize").iterdir()
            if path.is_dir() and json.loads((path / "result.json").read_text()) == results["quantize"]
        )
        assert (folder / "model.safetensors").stat().st_size == results["quantize"]["disk_bytes"], name
    for figure in (lambda r: r["quantize"]["disk_bytes"], lambda r: r["profile"]["memory_io_bytes"]):
        assert figure(found["gptq-w3a16"]) < figure(found["gptq-w4a16"])
    assert found["rtn-w3a16"]["profile"]["bops"] < found["rtn-w4a16"]["profile"]["bops"]


def test_profiles_average_over_what_was_decoded(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    for record in records(sweep[0]).values():
        decoded, evaluated = record["results"]["profile"]["decoded"], record["results"]["evaluate"]
        assert decoded["utterances"] + decoded["left_out"] == evaluated["utterances"]
        if not decoded["left_out"]:
            assert decoded["seconds"] == pytest.approx(evaluated["audio_seconds"] / evaluated["utterances"], abs=0.01)
            assert decoded["steps"] <= evaluated["tokens"] / evaluated["utterances"] < decoded["steps"] + 1


def test_sweep_ends_with_one_table_best_first(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, finished = sweep
    rows = [line.split() for line in finished.stdout.splitlines() if "sandbox_moonshine" in line]
    assert len(rows) == 4
    rates = [next(float(cell) for cell in row if cell.replace(".", "", 1).isdigit()) for row in rows]
    assert rates == sorted(rates)


def test_second_run_recomputes_nothing(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, _ = sweep
    cache = output / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}
    runs = len(list((output / "wandb").glob("offline-run-*")))
    again = run(output, "-m", "method=rtn,gptq", "wbits=3,4")
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert after == before
    assert len(list((output / "wandb").glob("offline-run-*"))) == runs


def test_each_point_is_one_wandb_run_in_the_sweep_s_group(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, _ = sweep
    runs = read_runs(output)
    assert len({found.id for found in runs}) == len(runs) == 4
    assert len({found.group for found in runs}) == 1
    by_id = {record["fingerprint"]: record for record in records(output).values()}
    for found in runs:
        record = by_id[found.id.rpartition("-")[2]]
        assert found.summary["evaluate/wer"] == pytest.approx(record["results"]["evaluate"]["wer"])
        assert found.summary["wer"] == found.summary["evaluate/wer"]
        assert found.summary["bops"] == record["results"]["profile"]["bops"]
        assert found.summary["quantize/disk_bytes"] == record["results"]["quantize"]["disk_bytes"]
        assert len(found.table("quantize/layers")["data"]) == len(record["results"]["quantize"]["layers"])
        worst = found.table("evaluate/worst")
        assert worst["columns"] == ["id", "reference", "hypothesis", "fp hypothesis", "errors", "fp errors", "audio"]
        assert len(worst["data"]) == 12
        buckets = found.table("evaluate/failures_by_duration")
        assert sum(row[buckets["columns"].index("utterances")] for row in buckets["data"]) == 12
        failures, probe = (record["results"]["evaluate"][name] for name in ("failures", "probe"))
        assert found.summary["evaluate/failures_loop_rate"] == failures["loop_rate"]
        heard = found.table("evaluate/probe")
        assert sum(row[heard["columns"].index("words")] for row in heard["data"]) == probe["words"]
        assert found.summary["evaluate/probe_words_per_minute"] == pytest.approx(probe["words_per_minute"])
        kinds = {artifact.type for artifact in found.artifacts.values()}
        assert kinds >= {"calibration", "model", "transcripts"}
        assert found.config["provenance"] == record["provenance"]
        assert record["provenance"]["packages"].keys() >= {"torch", "transformers", "jiwer"}
        assert record["provenance"]["differ"] == []
        assert found.exit_code == 0


def test_corrupted_entry_is_said_and_rebuilt_to_the_same_record(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(sweep[0], output)
    before = records(output)["gptq-w3a16"]
    for entry in entries(output, "transcripts"):
        file = output / "cache/transcripts" / entry / "transcripts.jsonl"
        file.write_bytes(file.read_bytes()[:-40])
    for unread in ("corpus", "decoded_cost", "probe", "calibrate"):  # not needed where all that rests on it is stored
        for entry in entries(output, unread):
            (output / "cache" / unread / entry / "key.json").write_text("{}")
    finished = run(output, "method=gptq", "wbits=3")
    assert finished.returncode == 0, finished.stderr
    assert "checksum of transcripts.jsonl differs" in finished.stderr
    assert lasting(records(output)["gptq-w3a16"]) == lasting(before)
    assert "finished before" in run(output, "method=gptq", "wbits=3").stderr, "nothing damaged is left"


@pytest.fixture(scope="module")
def unbroken(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The record of the point below when nobody kills it."""
    output = tmp_path_factory.mktemp("unbroken")
    shutil.copytree(sweep[0] / "cache", output / "cache")
    finished = run(output, *TO_BE_KILLED)
    assert finished.returncode == 0, finished.stderr
    (record,) = records(output).values()
    return record


@pytest.mark.parametrize("delay", [4.0, 6.5, 9.0])
def test_killed_and_resumed_equals_never_killed(unbroken: dict[str, Any], tmp_path: Path, delay: float) -> None:
    victim = subprocess.Popen(
        command(tmp_path, *TO_BE_KILLED),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(delay)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    finished = run(tmp_path, *TO_BE_KILLED)
    assert finished.returncode == 0, finished.stderr
    (resumed,) = records(tmp_path).values()
    assert lasting(resumed) == lasting(unbroken)


def test_processes_on_the_same_point_end_well_though_one_is_killed(tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(
            command(tmp_path, "method=rtn"), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    time.sleep(6)
    jobs[0].kill()
    for job in jobs[1:]:
        _, errors = job.communicate(timeout=200)
        assert job.returncode == 0, errors
    jobs[0].communicate()
    assert len(entries(tmp_path, "calibrate")) == 1
    assert len(records(tmp_path)) == 1
    settle(tmp_path)
    assert list((tmp_path / "failures").glob("*.json")) == []
    assert list((tmp_path / "failures/.running").iterdir()) == []


def test_fp_is_the_same_point_at_any_bits(tmp_path: Path) -> None:
    small = ("model=sandbox_whisper", "calib.n=1", "dataset.limit=4")
    finished = run(tmp_path, "-m", "method=fp", "wbits=3,4", "tracking=none", *small)
    assert finished.returncode == 0, finished.stderr
    (record,) = records(tmp_path).values()
    assert record["results"]["evaluate"]["versus_fp"]["difference"] == 0
    assert not (tmp_path / "wandb").exists()


def test_the_head_alone_at_4_bits(tmp_path: Path) -> None:
    finished = run(tmp_path, "scope=head", "wbits=4", "method=rtn", "tracking=none", "dataset=sandbox_other")
    assert finished.returncode == 0, finished.stderr
    assert "w16a16h4" in finished.stdout
    (record,) = records(tmp_path).values()
    results = record["results"]
    assert (record["bits"], record["wbits"], record["head_bits"]) == ("w16a16h4", 16, 4)
    (row,) = (row for row in results["quantize"]["layers"] if row["wbits"] < 16)
    assert (row["linear"], row["component"]) == ("model.decoder.embed_tokens", "head")
    words, d = row["shape"]
    saved = 2 * words * d - row["stored_bytes"]
    sizes = {json.loads(path.read_text())["disk_bytes"] for path in (tmp_path / "cache/quantize").glob("*/result.json")}
    assert row["stored_bytes"] == words * (d // 2 + 2) + words // 2  # codes, scales, zero points
    assert max(sizes) - min(sizes) == pytest.approx(saved, rel=0.01), "but for the header, no other byte changed"
    profile = results["profile"]
    assert profile["quantized_parameters"] == words * d
    assert profile["memory_io_breakdown"]["head"] == 21 * row["stored_bytes"]  # 20 tokens and the prompt
    assert profile["bops_breakdown"]["head"] == 21 * words * d * 4 * 16


def test_random_weights_run_every_stage_at_the_true_shape(tmp_path: Path) -> None:
    finished = run(
        tmp_path,
        "model=moonshine_tiny",
        "model.random_weights=true",
        "method=rtn",
        "group_size=32",
        "tracking=none",
        "calib.n=1",
        "dataset.limit=2",  # such a model writes until it is cut off
        "evaluate.probe_clips=1",
    )
    assert finished.returncode == 0, finished.stderr
    (record,) = records(tmp_path).values()
    profile = record["results"]["profile"]
    assert profile["parameters"] == 27_092_736
    assert profile["decoded"]["utterances"] == record["results"]["evaluate"]["utterances"]
    assert profile["roofline"]["device"] == "raspberry_pi_5"
