"""What becomes the name of a folder is checked before Hydra makes it, wherever it was set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from secrets_planted import IN_CONTEXT, KEYS

from src.errors import UserError
from src.project import ROOT
from src.runs.hydra_folders import make
from src.storage.secret_references import without_secrets_in
from tests import commands

KEY = KEYS["aws"]
SIGNED = IN_CONTEXT["amazon's signature"][0]
REFUSED = r"a key or token would become part of the name of a folder"


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def configuration(folder: Path, yaml: str, *given: str) -> DictConfig:
    """What Hydra composes of an experiment's yaml and a command line."""
    (folder / "experiment").mkdir()
    (folder / "experiment" / "own.yaml").write_text(f"# @package _global_\n{yaml}", encoding="utf-8")
    plain = [f"hydra.searchpath=[file://{folder}]", f"output_dir={folder}/out", "experiment=own"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", [*plain, *without_secrets_in(given), "hydra.mode=RUN"], return_hydra_config=True)


@pytest.mark.parametrize(
    ("yaml", "given"),
    [
        (f"hydra: {{run: {{dir: out-{KEY}}}}}", []),
        (f"hydra: {{run: {{dir: '{SIGNED}'}}}}", []),
        (f"hydra: {{sweep: {{dir: out-{KEY}}}}}", []),
        (f"hydra: {{sweep: {{subdir: '{KEY}-${{hydra.job.num}}'}}}}", []),
        (f"hydra: {{output_subdir: .{KEY}}}", []),
        (f"hydra: {{job: {{name: {KEY}}}}}", []),
        ("hydra: {sweep: {subdir: '${tracking.group}-${hydra.job.num}'}}", [f"tracking.group={KEY}"]),
        ("hydra: {sweep: {subdir: '${hydra.job.override_dirname}'}}", [f"tracking.group={KEY}"]),
        (f"hydra: {{sweeper: {{params: {{output_dir: 'a,out-{KEY}'}}}}}}", []),
        ("{}", [f"output_dir=out-{KEY}"]),
        ("{}", [f"hydra.run.dir=out-{KEY}"]),
    ],
)
def test_a_secret_does_not_become_the_name_of_a_folder(tmp_path: Path, yaml: str, given: list[str]) -> None:
    with pytest.raises(UserError, match=REFUSED):
        make(configuration(tmp_path, yaml, *given))
    assert not (tmp_path / "out").exists()


def test_a_yaml_s_own_folder_is_made(tmp_path: Path) -> None:
    make(configuration(tmp_path, f"hydra: {{run: {{dir: '{tmp_path}/of/${{method.name}}'}}}}", "method=rtn"))
    assert (tmp_path / "of" / "rtn").is_dir()


def test_a_name_that_is_refused_is_told_before_a_folder_is_made(tmp_path: Path) -> None:
    folder = f"{tmp_path}/of-{KEY}"
    for given in ((f"output_dir={folder}",), ("-m", "wbits=3,4", f"output_dir={tmp_path}/a,{folder}")):
        told = commands.run("src.main", *given)
        assert told.returncode == 1
        assert told.stderr == (
            "Error: output_dir: a key or token would become part of the name of a folder. "
            "Choose another, e.g. output_dir=outputs.\n"
        )
    assert list(tmp_path.iterdir()) == []
