"""A finished point is found again without the imports of a run, and only as long as nothing it depends on changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from src.project import ROOT
from src.records import Record
from src.runs.memo import stored_record
from src.settings import Settings
from src.settings.composite import Composite, from_hydra
from tests import commands
from tests.composed import SANDBOX

SMALL = (
    "method=rtn",
    "dataset=sandbox",  # a composite of two sets
    "dataset.limit=2",
    "evaluate.bootstrap_samples=100",
    "evaluate.probe_clips=0",
    "profile.repeats=1",
    "profile.max_load=1000",  # other tests may run beside
    "tracking=none",
)
SEARCH = ("hydra/sweeper=optuna", "sweep.objectives=[wer,disk_bytes]", "hydra.sweeper.n_trials=9", "wbits=8,6")


def study(output: Path, *overrides: str) -> Settings | Composite:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return from_hydra(compose("config", [SANDBOX, *SMALL, f"output_dir={output}", *overrides]))


def found(output: Path, *overrides: str) -> Record | None:
    return stored_record(study(output, *overrides))


def run(output: Path, *overrides: str, **changes: str) -> subprocess.CompletedProcess[str]:
    ran = commands.run("src.main", *overrides, *SMALL, f"output_dir={output}", **changes)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one finished composite, of a model whose files may be changed."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(ROOT / "src/sandbox/models/moonshine", folder / "model")
    run(folder / "out", f"model.source={folder / 'model'}", "wbits=8")
    return folder


def test_a_finished_point_ends_without_the_imports_of_a_run(finished: Path) -> None:
    arguments = (f"model.source={finished / 'model'}", "wbits=8")
    ran = run(finished / "out", *arguments, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    assert "src.runs.memo" in imported
    assert not imported & {"torch", "transformers", "datasets", "wandb", "pandas", "pyarrow", "optuna"}
    assert "finished before" in ran.stderr
    assert ran.stdout.count("sandbox_moonshine") == 3  # two sets and their mean
    [job, first] = sorted((finished / "out/runs").glob("*/*"), reverse=True)
    for name in ("record.json", "sandbox_clean/record.json", "sandbox_other/record.json"):
        assert json.loads((job / name).read_text()) == json.loads((first / name).read_text())


def test_it_is_found_only_as_it_was_asked_for(finished: Path) -> None:
    same = (f"model.source={finished / 'model'}", "wbits=8")
    assert found(finished / "out", *same)
    assert found(finished / "out", *same, "tracking.group=other", "sweep.only_missing=true")
    for change in ("wbits=7", "seed=1", "dataset.limit=3", "stages=[quantize]", "evaluate.rescore=true"):
        assert found(finished / "out", *same, change) is None, change
    assert found(finished, *same) is None


def test_it_is_not_found_once_any_file_that_it_rests_on_changed(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    asked = study(tmp_path / "out", f"model.source={finished / 'model'}", "wbits=8")
    assert stored_record(asked), "a folder may be copied"
    stored = [*(tmp_path / "out/records").glob("*.json"), *(tmp_path / "out/cache").glob("*/*/*")]
    needed = "corpus calibrate quantize transcripts evaluate composite latency profile decoded_cost finished"
    assert {file.parts[-3] for file in stored} >= set(needed.split())
    for file in stored:
        content, state = file.read_bytes(), file.stat()
        flipped = bytes([*content[:-2], content[-2] ^ 1, content[-1]])
        file.write_bytes(flipped)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size, and as old
        assert stored_record(asked) is None, file
        file.write_bytes(content)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert stored_record(asked)
    config = finished / "model/config.json"  # of the model's files, size and time are looked at
    state = config.stat()
    os.utime(config, ns=(0, 0))
    assert stored_record(asked) is None
    os.utime(config, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_it_is_not_found_once_an_adapter_lies_beside_the_model(finished: Path) -> None:
    adapter = finished / "model/adapter_config.json"
    adapter.write_text("{}")
    same = (f"model.source={finished / 'model'}", "wbits=8")
    assert found(finished / "out", *same) is None
    adapter.unlink()
    assert found(finished / "out", *same)


def test_a_sweep_submits_what_is_missing_and_a_search_ends_with_its_front(finished: Path) -> None:
    arguments = ("-m", f"model.source={finished / 'model'}")
    part = run(finished / "out", *arguments, "wbits=8,6", "sweep.only_missing=true")
    assert "1 of 2 points are finished and not submitted again" in part.stderr
    assert "Launching 1 jobs locally" in part.stderr
    assert part.stdout.count("(mean of 2)") == 2
    whole = run(finished / "out", *arguments, "wbits=8,6", "sweep.only_missing=true")
    assert "2 of 2 points are finished" in whole.stderr
    assert "Launching" not in whole.stderr
    assert sorted(whole.stdout.splitlines()) == sorted(part.stdout.splitlines())

    searched = run(finished / "out", *arguments, *SEARCH)
    assert searched.stderr.count("Launching") == 1  # both points, which are all there are
    front = searched.stdout.partition("Pareto front")[0].splitlines()
    assert front[0].split() == ["wbits", "wer", "disk_bytes", "record"]
    shown = {line.split()[0]: line.split()[1:] for line in front[2:]}
    records = [json.loads(path.read_text()) for path in (finished / "out/records").glob("*.json")]
    points = {str(each["wbits"]): each for each in records if "members" in each}
    figures = {
        bits: (each["results"]["evaluate"]["wer"], each["results"]["quantize"]["disk_bytes"])
        for bits, each in points.items()
    }
    best = {
        bits
        for bits, own in figures.items()
        if not any(o != own and o[0] <= own[0] and o[1] <= own[1] for o in figures.values())
    }
    assert set(shown) == best
    for bits, (wer, size, record) in shown.items():
        assert (wer, size) == (f"{figures[bits][0]:.2f}", str(figures[bits][1]))
        assert record == points[bits]["fingerprint"]

    again = run(finished / "out", *arguments, *SEARCH)
    assert "2 points are known" in again.stderr
    assert "Launching" not in again.stderr
    assert sorted(again.stdout.splitlines()) == sorted(searched.stdout.splitlines())
    assert again.stdout.partition("Pareto front")[0].splitlines() == front
