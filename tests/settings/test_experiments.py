"""Every saved sweep is the grid that its name promises, its points pass the checks, and a script launches it."""

from __future__ import annotations

import math
import os
import subprocess
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from src.project import ROOT
from src.settings import Settings
from src.settings.composite import from_hydra, members
from tests.commands import environment

CONF, LAUNCHERS = ROOT / "conf", ROOT / "launchers"
FIVE = {"whisper_tiny_en", "whisper_base_en", "whisper_small_en", "moonshine_tiny", "moonshine_base"}

SIZES = {  # points that are submitted
    "bits_curve": 2 * 2 * 4,
    "methods": 2 * 25 * 5,
    "benchmark": 3 * 25 * 9 * 2 * 2,
    "sensitivity": 2 * 6 * 3,
    "edge_asr_weights": 5 * 14 * 3,
    "edge_asr_activations": 5 * 14 * 2,
    "calib_size": 2 * 3 * 4 * 3,
    "calib_source": 2 * 3 * 3 * 3,
    "calib_teacher": 2 * 3 * 2 * 2,
    "group_size": 2 * 3 * 3 * 4,
    "mixed_precision": 2 * 2 * 7,
    "equal_footprint": 6 * 5,
    "sandbox": 1,
}


def swept(name: str) -> dict[str, list[str]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        params = compose("config", [f"experiment={name}"], return_hydra_config=True).hydra.sweeper.params
    overrides = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in (params or {}).items()])
    return {each.get_key_element(): list(each.sweep_string_iterator()) for each in overrides}


def settings(name: str, *overrides: str) -> tuple[Settings, ...]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: DictConfig = compose("config", [f"experiment={name}", *overrides])
    return members(from_hydra(config))


def test_every_experiment_has_its_size_here() -> None:
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_the_points_of_an_experiment_pass_the_checks_and_differ(name: str) -> None:
    grid = swept(name)
    assert math.prod(map(len, grid.values())) == SIZES[name]
    assert all(len(set(values)) == len(values) for values in grid.values())
    groups = {key: values for key, values in grid.items() if (CONF / key).is_dir()}
    for group, values in groups.items():  # that each choice composes is tested with the choices
        assert set(values) <= {path.stem for path in (CONF / group).glob("*.yaml")}
    others = [[f"{key}={value}" for value in values] for key, values in grid.items() if key not in groups]
    composed = [settings(name, *filter(None, row)) for row in zip_longest(*others)] or [settings(name)]
    assert len(set(map(str, composed))) == len(composed)


def test_the_papers_grid_is_five_models_by_eight_test_sets() -> None:
    for name in ("edge_asr_weights", "edge_asr_activations"):
        assert set(swept(name)["model"]) == FIVE
        assert len({each.dataset.name for each in settings(name)}) == 8


def launched(*arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The launcher, with a stand-in for python on the path that prints what it is asked."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    changed = environment(PATH=path, LAUNCHER="slurm", VIRTUAL_ENV=str(tmp_path))
    command = [LAUNCHERS / "experiment.sh", *arguments]
    return subprocess.run(command, env=changed, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_launcher_runs_an_experiment_by_its_name(tmp_path: Path) -> None:
    ran = launched("methods", "wbits=2,3", tmp_path=tmp_path)
    assert ran.stdout == "-m src.main -m experiment=methods hydra/launcher=slurm wbits=2,3\n"


@pytest.mark.parametrize("wrong", [["nonsense"], []])
def test_the_launcher_names_the_experiments_where_it_does_not_know_one(wrong: list[str], tmp_path: Path) -> None:
    ran = launched(*wrong, tmp_path=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert all(name in ran.stderr for name in SIZES)
