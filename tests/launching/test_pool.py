"""How submitit starts a job on this machine is private to it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from submitit.local import local

from src.launching import pool


class Watched:
    def begin(self) -> None:
        raise AssertionError("nothing is started")


@pytest.fixture
def executor(tmp_path: Path) -> submitit.AutoExecutor:
    executor = submitit.AutoExecutor(tmp_path / "%j", cluster="local")
    executor.update_parameters(timeout_min=7, gpus_per_node=2)
    return executor


def test_a_job_is_started_as_submitit_starts_it(
    executor: submitit.AutoExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[tuple[list[str], dict[str, Any]]]()

    def start(command: list[str], **how: Any) -> SimpleNamespace:
        started.append((command, how))
        return SimpleNamespace(pid=12345)

    ours = pool.PoolExecutor(executor, Watched())
    monkeypatch.setattr(subprocess, "Popen", start)
    assert ours._submit_command("python job").job_id == "12345"
    local.start_controller(ours.folder, "python job", cuda_devices="0,1", timeout_min=7)
    (own, how), (theirs, plain) = started
    assert own == theirs
    assert how["env"] == plain["env"]
    assert how["start_new_session"]


def test_another_submitit_is_refused(executor: submitit.AutoExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(local.LocalExecutor, "_submit_command")
    with pytest.raises(RuntimeError, match="use the version of pyproject"):
        pool.PoolExecutor(executor, Watched())
