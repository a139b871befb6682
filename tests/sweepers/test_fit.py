"""Races on the sandbox, run as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from src.records import CHOSEN
from tests import commands
from tests.sweepers.racing import BUDGET, arguments, candidates, lasting, told
from tests.wandb_reader import read_runs

DEADLINE = 200.0  # seconds, on a machine with much else to do


def fit(outputs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return commands.run("src.main", *arguments(outputs, *more))


def record(outputs: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outputs / "records" / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a race for three megabytes."""
    folder = tmp_path_factory.mktemp("race")
    done = fit(folder, BUDGET)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("wbits=4"))
    assert row.split()[-2:] == ["front", CHOSEN]
    return folder


def test_the_best_that_fits_is_chosen_and_what_loses_is_heard_no_further(outputs: Path) -> None:
    found = candidates(outputs)
    assert found["wbits=4"].outcome == CHOSEN
    assert found["wbits=4"].megabytes is not None
    assert found["wbits=4"].megabytes <= 3
    assert [each.clips for each in found["wbits=4"].rounds] == [6, None]
    assert (found["wbits=8"].outcome, found["wbits=8"].rounds, found["wbits=8"].front) == ("too large", [], False)
    assert found["wbits=2"].outcome.endswith("on 6 clips")
    assert [each.clips for each in found["wbits=2"].rounds] == [6]
    assert found["wbits=2"].front, "it is smaller"
    assert told(outputs).heard == 6 + 6 + 12


def test_the_figures_are_those_of_the_points(outputs: Path) -> None:
    chosen = candidates(outputs)["wbits=4"]
    heard = record(outputs, chosen.rounds[-1].record)
    scores = heard["results"]["evaluate"]
    last = chosen.rounds[-1]
    assert (last.wer, last.wer_low, last.wer_high) == tuple(scores[name] for name in ("wer", "wer_low", "wer_high"))
    assert heard["results"]["quantize"]["disk_bytes"] == (chosen.megabytes or 0) * 1e6
    assert heard["results"]["profile"]["roofline"]["rtf"] == chosen.rtf
    assert heard["subset"] == 12


def test_a_race_killed_in_the_middle_of_a_round_ends_as_one_that_was_not(outputs: Path, tmp_path: Path) -> None:
    racing = commands.start(
        "src.main", *arguments(tmp_path, BUDGET), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + DEADLINE
    while not list((tmp_path / "cache" / "transcripts").glob("*.partial")) and racing.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    racing.send_signal(signal.SIGKILL)
    assert racing.wait() == -signal.SIGKILL, "it was killed while it listened"
    assert not lasting(tmp_path)
    again = fit(tmp_path, BUDGET)
    assert again.returncode == 0, again.stderr
    assert "quantize: sandbox_moonshine-rtn" not in again.stderr, "what was finished is not made again"
    before = {name: content for name, content in lasting(outputs).items() if name in lasting(tmp_path)}
    assert lasting(tmp_path) == before


def test_with_a_bound_on_the_error_rate_the_smallest_that_meets_it_is_chosen(outputs: Path) -> None:
    done = fit(outputs, "hydra.sweeper.wer=15")
    assert done.returncode == 0, done.stderr
    found = candidates(outputs)
    assert found["wbits=4"].outcome == CHOSEN
    assert found["wbits=8"].rounds[-1].wer <= 15
    assert found["wbits=8"].outcome == "larger"
    assert "above 15 %" in found["wbits=2"].outcome


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a race that is tracked, for what onnxruntime can run, with candidates that cannot be that or cannot be."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (the dev extra)")
    folder = tmp_path_factory.mktemp("exported")
    lines = "'method=fp','kvbits=4','method=budget method.megabytes=0.1','scope=everything frontend_bits=8'"
    given = ("frontend_bits=16", "dataset.limit=2", "calib.n=2")
    less = ("evaluate.bootstrap_samples=100", "evaluate.probe_clips=0")
    how = ("hydra/sweeper=fit", "hydra.sweeper.clips=[]", f"hydra.sweeper.candidates=[{lines}]")
    asked = ("hydra.sweeper.megabytes=4", "hydra.sweeper.then=['export=onnx']", f"output_dir={folder}")
    done = commands.run("src.main", "-m", *given, *less, *how, *asked)
    assert done.returncode == 0, done.stderr
    return folder


def test_what_cannot_be_or_cannot_be_exported_is_out_and_the_best_of_the_others_is_exported(exported: Path) -> None:
    found = candidates(exported)
    assert found["method=fp"].outcome == "too large"
    assert found["kvbits=4"].outcome.startswith("refused: export: onnx cannot hold a key-value cache")
    small = found["method=budget method.megabytes=0.1"].outcome
    assert small.startswith("refused: method.megabytes: 0.1 is too small")
    assert found["scope=everything"].outcome == CHOSEN, "frontend_bits is the command line's"
    folder = told(exported).export
    assert folder is not None
    assert list((exported / folder).glob("*.onnx"))


def test_the_choice_and_its_evidence_are_a_run_of_the_sweep_s_group(exported: Path) -> None:
    runs = read_runs(exported)
    (own,) = [each for each in runs if each.job_type == "race"]
    assert {each.group for each in runs} == {own.group}
    assert own.group.startswith("20")
    race = told(exported)
    chosen = race.chosen
    assert chosen is not None
    assert own.summary["wer"] == own.summary["race/wer"] == chosen.rounds[-1].wer
    assert own.summary["disk_bytes"] == (chosen.megabytes or 0) * 1e6
    assert own.config["chosen"] == {"overrides": list(chosen.overrides), "record": chosen.record}
    table = own.table("race/candidates")
    assert [row[0] for row in table["data"]] == [each.name for each in race.ranked]
    assert dict(zip(table["columns"], table["data"][0], strict=True))["outcome"] == CHOSEN


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("hydra.sweeper.megabytes=1", ["hydra.sweeper.megabytes:", "wbits=2 takes 1.32", "add candidates"]),
        ("hydra.sweeper.megabytes=few", ["hydra.sweeper.megabytes:", "'few'", "null"]),
        ("hydra.sweeper.clips=[8,4]", ["hydra.sweeper.clips:", "[8, 4]", "[20,60]"]),
    ],
)
def test_what_cannot_be_met_is_said(outputs: Path, override: str, expected: list[str]) -> None:
    done = fit(outputs, override)
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert all(each in sentence for each in expected), sentence
    assert done.returncode == 1


def test_a_race_that_failed_offers_its_own_command(outputs: Path, tmp_path: Path) -> None:
    """No clip of the test set can be read, which nobody knows before the first round."""
    done = fit(outputs, BUDGET, f"dataset.root={tmp_path}")
    assert done.returncode == 1
    *_, sentence, command = done.stderr.splitlines()
    assert sentence.endswith("points left no record. To go on:")
    assert f"dataset.root={tmp_path}" in command
    assert "only_missing" not in command
    assert "chosen" not in done.stdout
