"""W&B's environment variables: each is obeyed and said, said not to be obeyed, or refused by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from secrets_planted import KEYS, found
from wandb_reader import read_runs

from src.errors import UserError
from src.project import ROOT
from src.settings import TrackingSettings, from_config
from src.settings import wandb_variables as variables
from src.tracking import RunInfo, open_tracker


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(variables, "_said", set())
    caplog.set_level(logging.INFO)


def tracking(mode: str, **other: str | None) -> TrackingSettings:
    return TrackingSettings.model_validate({"mode": mode, "project": "p", "entity": None, "group": None, **other})


@pytest.mark.parametrize(
    ("mode", "name", "value", "then", "said"),
    [
        ("offline", "WANDB_MODE", "disabled", "none", "WANDB_MODE=disabled wins over tracking.mode=offline: now none"),
        ("online", "WANDB_DISABLED", "true", "none", "WANDB_DISABLED=true wins over tracking.mode=online: now none"),
        ("online", "WANDB_MODE", "dryrun", "offline", "WANDB_MODE=dryrun wins over tracking.mode=online: now offline"),
        ("offline", "WANDB_MODE", "online", "offline", "tracking.mode=offline wins over WANDB_MODE=online"),
        ("none", "WANDB_MODE", "offline", "none", "tracking.mode=none wins over WANDB_MODE=offline"),
        ("online", "WANDB_MODE", "online", "online", "WANDB_MODE=online is obeyed"),
        ("offline", "WANDB_DISABLED", "false", "offline", ""),
        ("offline", "WANDB_MODE", "", "offline", ""),
    ],
)
def test_of_two_that_ask_for_a_mode_the_one_that_shares_less_wins_and_it_is_said(
    mode: str, name: str, value: str, then: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert variables.obeyed(tracking(mode), {name: value}).mode == then
    assert caplog.messages == ([said] if said else [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_MODE", "shared"),
        ("WANDB_DISABLED", "maybe"),
        *((name, "x") for name in ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_JOB_TYPE", "WANDB_SWEEP_ID")),
    ],
)
def test_what_has_no_meaning_here_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: '{value}' .* Unset it"):
        variables.obeyed(tracking("offline"), {name: value})


def test_without_runs_no_variable_of_a_run_matters() -> None:
    assert variables.obeyed(tracking("none"), {"WANDB_RUN_ID": "x", "WANDB_DIR": "/tmp"}).mode == "none"


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ({"WANDB_DIR": "/data"}, "WANDB_DIR=/data is not obeyed: runs are kept below output_dir"),
        ({"WANDB_SAVE_CODE": "true"}, "WANDB_SAVE_CODE=true is not obeyed: nothing about the machine"),
        ({"WANDB__DISABLE_STATS": "false"}, "WANDB__DISABLE_STATS=false is not obeyed: nothing about the machine"),
        ({"WANDB_DISABLE_GIT": "true"}, ""),
        ({"WANDB_INIT_TIMEOUT": "5"}, ""),
        ({"WANDB_PROJECT": "q"}, "tracking.project=p wins over WANDB_PROJECT=q"),
        ({"WANDB_PROJECT": "p"}, "WANDB_PROJECT=p is obeyed"),
        ({"WANDB_TAGS": "a,b"}, "WANDB_TAGS=a,b is obeyed"),
    ],
)
def test_the_others_are_said_where_they_change_something(
    variable: dict[str, str], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    variables.obeyed(tracking("offline"), variable)
    assert [message[: len(sentence)] for message in caplog.messages] == ([sentence] if sentence else [])


def test_settings_of_a_point_obey_them(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert from_config(config).tracking.mode == "none"


@pytest.mark.parametrize("choice", ["offline", "wandb", "none"])
def test_project_entity_and_group_are_defaults(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"WANDB_PROJECT": "project", "WANDB_ENTITY": "entity", "WANDB_RUN_GROUP": "group"}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    loaded = OmegaConf.load(ROOT / "conf" / "tracking" / f"{choice}.yaml")
    assert [loaded[setting] for setting in names.values()] == ["edge-asr", None, None]
    for name in names:
        monkeypatch.setenv(name, f"my-{name}")
    assert [loaded[setting] for setting in names.values()] == [f"my-{name}" for name in names]


def test_a_run_has_their_tags_and_notes_and_none_of_their_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TAGS": f"mine,{KEYS['gitlab']}", "NOTES": f"with {KEYS['slack']}"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    names = {"project": KEYS["openai"], "group": KEYS["github"]}
    info = RunInfo(f"id-{KEYS['aws']}", KEYS["jwt"], names["group"], "point", (KEYS["google"],), {}, tmp_path)
    with open_tracker(tracking("offline", **names), info) as run:
        run.table("evaluate", "probe", ["a"], [[f"heard {KEYS['hugging face']}"]])
    (read,) = read_runs(tmp_path)
    assert read.tags == ["***", "mine", "***"]
    assert (read.name, read.group, read.project, read.id) == ("***", "***", "***", "id-hidden")
    assert read.table("evaluate/probe")["data"] == [["heard ***"]]
    assert found(KEYS.values(), tmp_path) == {}
