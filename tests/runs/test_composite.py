"""Several test sets in one command: each is a point of its own, and their WERs are averaged without weights."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from src import compare
from src.errors import UserError
from src.metrics import METRICS
from src.project import ROOT
from src.records import Record
from src.runs.composite_record import build_composite_record
from src.settings import Settings
from src.settings.composite import Composite, from_hydra
from src.stages.point import open_point
from tests import commands
from tests.composed import composed, composites, sandboxed
from tests.wandb_reader import read_runs

LEADERBOARD = (
    *("ami", "earnings22", "gigaspeech", "librispeech_clean", "librispeech_other"),
    *("spgispeech", "tedlium", "voxpopuli"),
)
MEMBERS = ("sandbox_clean", "sandbox_other")
SAMPLE = ("librispeech_sample_clean", "librispeech_sample_other")
SMALL = (
    *("dataset.limit=16", "calib.n=6", "profile.repeats=2", "profile.max_load=1000"),
    *("evaluate.bootstrap_samples=500", "evaluate.probe_clips=1"),
)


def study(*overrides: str) -> Settings | Composite:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return from_hydra(compose("config", sandboxed(overrides)))


def members(*overrides: str) -> dict[str, Settings]:
    found = study(*overrides)
    assert isinstance(found, Composite)
    return {settings.dataset.name: settings for settings in found.members}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("dataset.members.sandbox_clean.name=../../elsewhere", "no slash"),
        ("dataset.members.sandbox_clean.name=sandbox_other", "several are named 'sandbox_other'"),
        ("dataset.name=a/b", "no slash"),
    ],
)
def test_names_that_would_write_over_others_or_elsewhere_are_refused(override: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        study("dataset=sandbox", override)


def run(output: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return commands.run("src.main", *overrides, f"output_dir={output}", HF_HUB_OFFLINE="1")


def records(output: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (output / "records").glob("*.json")]
    return {f"{record['method']}-{record['dataset']}": record for record in found}


def rows(process: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [line.split() for line in process.stdout.splitlines() if line.startswith("sandbox_moonshine")]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    output = tmp_path_factory.mktemp("composite")
    return output, run(output, "dataset=sandbox", "tracking=none", *SMALL)


def test_every_composite_is_tested_here() -> None:
    assert composites() == {"esb", "sandbox", "librispeech", "librispeech_sample"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("esb", LEADERBOARD),
        ("sandbox", MEMBERS),
        ("librispeech", tuple(name for name in LEADERBOARD if name.startswith("librispeech"))),
        ("librispeech_sample", SAMPLE),
    ],
)
def test_a_composite_is_the_points_of_its_members(name: str, expected: tuple[str, ...]) -> None:
    found = members(f"dataset={name}", "wbits=3")
    assert tuple(found) == expected
    for member, settings in found.items():
        assert settings == composed(f"dataset={member}", "wbits=3")


def test_root_and_limit_reach_every_member_and_one_may_differ() -> None:
    found = members("dataset=esb", "dataset.root=/data", "dataset.limit=200", "dataset.members.ami.limit=50")
    limits = {name: settings.dataset.limit for name, settings in found.items()}
    assert limits == {**dict.fromkeys(LEADERBOARD, 200), "ami": 50}
    assert {settings.dataset.root for settings in found.values()} == {"/data"}


def test_a_member_can_be_left_out() -> None:
    assert set(members("dataset=esb", "~dataset.members.tedlium")) == set(LEADERBOARD) - {"tedlium"}


@pytest.mark.parametrize(
    ("overrides", "field", "told"),
    [
        (["dataset@calib.dataset=esb"], "calib.dataset", "drawn from one"),
        (["dataset=esb", "+dataset.splt=test"], "dataset.splt", "no member of esb takes it"),
        (["dataset=esb", "+dataset.split=test.clean"], "dataset.split", "dataset.members.ami.split"),
        (["dataset=sandbox", "~dataset.members.sandbox_clean", "~dataset.members.sandbox_other"], "dataset", "Keep"),
        (["dataset=esb", "dataset.limit=0"], "dataset.limit", "0"),
    ],
)
def test_what_a_composite_cannot_be_is_said(overrides: list[str], field: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        study(*overrides)
    assert caught.value.field.startswith(field)


def test_a_single_set_is_a_single_point() -> None:
    assert study("dataset=sandbox_other") == composed("dataset=sandbox_other")


def test_each_member_has_a_record_and_the_composite_their_mean(
    single: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, finished = single
    assert finished.returncode == 0, finished.stderr
    found = records(output)
    assert set(found) == {"gptq-sandbox_clean", "gptq-sandbox_other", "gptq-sandbox"}
    own = [found[f"gptq-{member}"]["results"]["evaluate"] for member in MEMBERS]
    mean = found["gptq-sandbox"]["results"]["evaluate"]
    assert mean["wer"] == pytest.approx(np.mean([each["wer"] for each in own]))
    assert mean["fp_wer"] == pytest.approx(np.mean([each["fp_wer"] for each in own]))
    assert mean["versus_fp"]["difference"] == pytest.approx(mean["wer"] - mean["fp_wer"])
    assert mean["wer_low"] <= mean["wer"] <= mean["wer_high"]
    assert mean["utterances"] == 32
    assert [each["fingerprint"] for each in found["gptq-sandbox"]["members"]] == [
        found[f"gptq-{member}"]["fingerprint"] for member in MEMBERS
    ]
    assert found["gptq-sandbox"]["subset"] == 16
    made = found["gptq-sandbox"]["provenance"]["stages"]
    assert made.keys() >= {"quantize", *(f"{member}/transcripts" for member in MEMBERS)}
    assert found["gptq-sandbox"]["measured"].keys() == {"latency"}  # how fast it decoded each set is each member's


def test_a_mean_that_cannot_be_made_again_is_said_and_not_left_out(
    single: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shutil.copytree(single[0] / "cache", tmp_path / "cache")
    own = {name: found for name, found in records(single[0]).items() if "members" not in found}
    chosen = members("dataset=sandbox", "tracking=none", *SMALL, f"output_dir={tmp_path}").values()
    points = [open_point(each) for each in chosen]
    found = [Record.of(own[f"gptq-{each.dataset.name}"]) for each in chosen]
    whole = build_composite_record("sandbox", points, found)
    shutil.rmtree(points[1].transcripts.path)
    assert build_composite_record("sandbox", points, found) == whole, "the mean is stored"
    shutil.rmtree(tmp_path / "cache" / "composite")
    with pytest.raises(UserError, match=r"stages: the mean needs the transcripts of .*-sandbox_other.*Add evaluate"):
        build_composite_record("sandbox", points, found)


def test_a_mean_is_not_compared_utterance_by_utterance_but_its_members_are_offered(
    single: tuple[Path, subprocess.CompletedProcess[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, _ = single
    found = records(output)
    mean, member = found["gptq-sandbox"]["fingerprint"], found["gptq-sandbox_clean"]["fingerprint"]
    with pytest.raises(SystemExit) as left:
        compare.main([member, mean, "--output-dir", str(output)])
    assert left.value.code == 1
    assert f"is a mean over test sets. Compare its members: {member}" in " ".join(capsys.readouterr().err.split())


def test_the_table_ends_with_the_mean_beside_its_members(
    single: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, finished = single
    found = records(output)
    table = rows(finished)
    assert [row[3] for row in table] == [*MEMBERS, "sandbox"]
    assert table[-1][4:7] == ["(mean", "of", "2)"]
    wers = [f"{found[f'gptq-{name}']['results']['evaluate']['wer']:.2f}" for name in (*MEMBERS, "sandbox")]
    assert [table[0][4], table[1][4], table[2][7]] == wers


def test_the_model_is_calibrated_and_quantized_once(single: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, _ = single
    made = {
        stage: sum(path.is_dir() for path in (output / "cache" / stage).iterdir())
        for stage in ("calibrate", "quantize", "transcripts", "profile", "composite")
    }
    assert made == {"calibrate": 1, "quantize": 2, "transcripts": 4, "profile": 1, "composite": 1}  # with fp


def test_the_time_to_quantize_is_a_figure_of_every_member_and_of_the_mean(
    single: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, _ = single
    entries = {plain["entries"]["quantize"] for plain in records(output).values()}
    [file] = [output / "cache" / "quantize" / name / "times.json" for name in entries]
    seconds = json.loads(file.read_text())["processor_seconds"]
    told = [Record.of(plain).results.figure(METRICS["processor_seconds"]) for plain in records(output).values()]
    assert told == [seconds] * 3
    assert seconds > 0


def test_a_sweep_over_composites_shows_each_mean_below_its_members(
    single: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, _ = single
    finished = run(output, "-m", "dataset=sandbox", "method=gptq,rtn", "stages=[quantize,evaluate]", *SMALL)
    assert finished.returncode == 0, finished.stderr
    table = rows(finished)
    assert [row[3] for row in table] == [*MEMBERS, "sandbox"] * 2
    means = [float(row[7]) for row in table if row[3] == "sandbox"]
    assert means == sorted(means)
    assert {row[1] for row in table[:3]} != {row[1] for row in table[3:]}
    found = {run.id.rpartition("-")[2]: run for run in read_runs(output)}
    by_fingerprint = {record["fingerprint"]: record for record in records(output).values()}
    assert len(found) == 6
    assert len({run.group for run in found.values()}) == 1
    for identity, logged in found.items():
        assert logged.summary["wer"] == pytest.approx(by_fingerprint[identity]["results"]["evaluate"]["wer"])
        if by_fingerprint[identity]["dataset"] == "sandbox":
            assert [row[0] for row in logged.table("evaluate/members")["data"]] == list(MEMBERS)


def test_all_absent_members_are_named_before_any_work(tmp_path: Path) -> None:
    """A copy of the leaderboard's data that holds two of its eight sets."""
    mirror = tmp_path / "mirror"
    for config, split in (("ami", "test"), ("tedlium", "test")):
        (mirror / config).mkdir(parents=True)
        source = ROOT / "src/sandbox/data/clean/test-00000-of-00001.parquet"
        (mirror / config / f"{split}-00000-of-00001.parquet").symlink_to(source)
    output = tmp_path / "output"
    finished = run(output, "dataset=esb", f"dataset.root={mirror}", "tracking=none")
    assert finished.returncode == 1
    [sentence] = [line for line in finished.stderr.splitlines() if line.startswith("Error:")]
    absent = [name for name in LEADERBOARD if name not in ("ami", "tedlium")]
    assert f"6 of 8 sets cannot be read: {', '.join(absent)}" in sentence
    assert "~dataset.members.earnings22" in sentence
    assert not (output / "records").exists()
    assert not any(path.is_dir() for path in (output / "cache").iterdir())
