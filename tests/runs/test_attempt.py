"""Failure records: there from a failure until the point succeeds, also of a process that died without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from src.errors import UserError
from src.project import ROOT
from src.runs.attempt import Attempt, enter, identify, settle
from src.stages.point import open_point
from src.storage.checksum import with_checksum
from src.storage.store import write_json
from tests.commands import environment
from tests.composed import SANDBOX, composed
from tests.reporting import recorded

POINT = ("method=rtn", "wbits=3", "tracking.project=hf_abcdefghijklmnopqrstu")
CHILD = """
import sys, time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from tests.runs.test_attempt import configuration
from src.runs.attempt import Attempt, enter
with Attempt(configuration(Path(sys.argv[1]))):
    enter("quantize")
    print("begun", flush=True)
    time.sleep(60)
"""


def configuration(output: Path, *overrides: str, sweep: bool = True, folder: str = "job") -> DictConfig:
    """What Hydra composes for a job whose folder is ``output/folder``; it is the current one."""
    mode = "MULTIRUN" if sweep else "RUN"
    given = [SANDBOX, *POINT, *overrides, f"output_dir={output}", f"hydra.mode={mode}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", given, return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(output / folder)
        config.hydra.job.name = "main"
    HydraConfig.instance().set_config(config)
    (output / folder).mkdir(exist_ok=True)
    (output / folder / "main.log").touch()
    return config


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def record(output: Path) -> dict[str, Any]:
    (path,) = (output / "failures").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    assert path.stem == found["fingerprint"]
    return found


def attempt(config: DictConfig, error: BaseException | None, body: Callable[[], None] = lambda: None) -> None:
    with pytest.raises(type(error)) if error else pytest.MonkeyPatch.context(), Attempt(config):
        body()
        if error is not None:
            raise error


def test_a_failure_says_which_point_failed_where_and_why(tmp_path: Path) -> None:
    def body() -> None:
        identify("0123456789abcdef", composed(*POINT), {"git": "1"})
        enter("quantize")

    attempt(configuration(tmp_path), ValueError(f"odd thing in {Path.home()}/x\nfor hf_abcdefghijklmnopqrstu"), body)
    found = record(tmp_path)
    names = ("fingerprint", "model", "method", "bits", "wbits", "dataset", "seed")
    assert [found[name] for name in names] == [
        "0123456789abcdef", "sandbox_moonshine", "rtn", "w3a16", 3, "sandbox_clean", 0,
    ]  # fmt: skip
    failure = found["failure"]
    assert (failure["stage"], failure["kind"], failure["log"]) == ("quantize", "ValueError", "job/main.log")
    assert failure["reason"] == "ValueError: odd thing in ~/x for ***"
    assert "raise error" in failure["traceback"]
    assert "hf_abcdefghijklmnopqrstu" not in json.dumps(found)
    assert json.loads((tmp_path / "job" / "failure.json").read_text()) == found


def test_success_removes_the_records_of_earlier_failures_under_any_name(tmp_path: Path) -> None:
    name = "0123456789abcdef"
    attempt(configuration(tmp_path), UserError("dataset", "not there", "Get it"))  # before the fingerprint is known
    attempt(configuration(tmp_path), ValueError("odd"), lambda: identify(name, composed(*POINT), {}))
    assert len(list((tmp_path / "failures").glob("*.json"))) == 2
    attempt(configuration(tmp_path), None, lambda: identify(name, composed(*POINT), {}))
    assert [*(tmp_path / "failures").glob("*.json"), *(tmp_path / "failures/.running").iterdir()] == []
    assert not (tmp_path / "job" / "failure.json").exists()


def test_a_mistake_read_at_the_terminal_leaves_no_record(tmp_path: Path) -> None:
    attempt(configuration(tmp_path, sweep=False), UserError("wbits", "odd", "Use 4"))
    assert list((tmp_path / "failures").glob("*.json")) == []


def test_settings_that_are_mistaken_are_described_as_they_were_given(tmp_path: Path) -> None:
    attempt(configuration(tmp_path, "wbits=9"), UserError("wbits", "odd", "Use 4"))
    found = record(tmp_path)
    assert (found["bits"], found["failure"]["stage"]) == ("w9a16", None)
    assert "wbits=9" in found["overrides"]


def test_a_process_that_was_killed_is_found_by_whoever_looks_and_one_that_lives_is_not(tmp_path: Path) -> None:
    job = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "begun\n"
    settle(tmp_path)
    assert list((tmp_path / "failures").glob("*.json")) == []
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    job.stdout.close()
    settle(tmp_path)
    failure = record(tmp_path)["failure"]
    assert (failure["kind"], failure["stage"]) == ("lost", "quantize")
    assert "without a word" in failure["reason"]
    attempt(configuration(tmp_path), None)
    assert list((tmp_path / "failures").glob("*.json")) == []


def test_a_job_put_back_in_the_queue_is_said_to_wait_until_it_is_started_again(tmp_path: Path) -> None:
    attempt(configuration(tmp_path), SystemExit(-1))
    settle(tmp_path)
    failure = record(tmp_path)["failure"]
    assert (failure["kind"], failure["reason"].partition(",")[0]) == (
        "waits", "it was put back in the queue before it was done",
    )  # fmt: skip
    attempt(configuration(tmp_path), None)
    assert list((tmp_path / "failures").glob("*.json")) == []


@pytest.mark.parametrize("identified", [False, True], ids=["before its point was known", "in a stage"])
def test_why_a_point_failed_last_is_told_and_not_how_a_job_before_ended(tmp_path: Path, identified: bool) -> None:
    def body() -> None:
        identify("0123456789abcdef", composed(*POINT), {})

    attempt(configuration(tmp_path), SystemExit(-1), body if identified else lambda: None)
    attempt(configuration(tmp_path, folder="another"), ValueError("odd"), body)
    settle(tmp_path)
    assert record(tmp_path)["failure"]["reason"] == "ValueError: odd"


IDLE = ("device=cuda", "export=onnx", "evaluate.rescore=true", "profile.repeats=3", "profile.runtimes=[onnx]")
IDLE_AT_FULL_PRECISION = (
    *("wbits=3", "abits=8", "kvbits=4", "head_bits=4", "frontend_bits=8", "group_size=32", "symmetric=true"),
    *("scope=encoder", "activation.symmetric=true", "cache.group=64", "calib.n=7"),
)


@pytest.mark.parametrize(
    "other", [*(("method=rtn", each) for each in IDLE), *(("method=fp", each) for each in IDLE_AT_FULL_PRECISION)]
)
def test_a_job_that_died_early_is_no_failure_where_the_same_point_was_made_with_other_settings(
    tmp_path: Path, other: tuple[str, str]
) -> None:
    """Of the settings that its record does not depend on."""
    method, setting = other
    name = open_point(composed(method, f"output_dir={tmp_path}")).fingerprint
    assert open_point(composed(method, setting, f"output_dir={tmp_path}")).fingerprint == name
    attempt(configuration(tmp_path, method, setting), SystemExit(-1))
    plain = configuration(tmp_path, method, folder="another")
    attempt(plain, None, lambda: identify(name, composed(method), {}))
    came(tmp_path, name, "calibrate", "quantize", "evaluate", "profile")
    settle(tmp_path)
    assert list((tmp_path / "failures").glob("*.json")) == []


def came(output: Path, name: str, *stages: str) -> None:
    """The record that the point leaves."""
    whole = recorded.record("rtn", "clean", 10.0, fingerprint=name)
    results = {"calibrate": {}, **whole["results"]}
    made = whole | {"results": {stage: results[stage] for stage in stages}}
    write_json(output / "records" / f"{name}.json", with_checksum(made))


@pytest.mark.parametrize("identified", [False, True], ids=["before its point was known", "in a stage"])
@pytest.mark.parametrize(
    "stages", [("evaluate",), ("calibrate", "quantize", "evaluate", "profile")], ids=["part", "all"]
)
def test_a_job_that_died_is_no_failure_of_a_point_that_another_job_finished(
    tmp_path: Path, identified: bool, stages: tuple[str, ...]
) -> None:
    name = "0123456789abcdef"

    def body() -> None:
        if identified:
            identify(name, composed(*POINT), {})
            enter("quantize")

    attempt(configuration(tmp_path), SystemExit(-1), body)  # its mark and its lock stay behind
    attempt(configuration(tmp_path, folder="another"), None, lambda: identify(name, composed(*POINT), {}))
    came(tmp_path, name, *stages)
    settle(tmp_path)
    assert len(list((tmp_path / "failures").glob("*.json"))) == (0 if len(stages) == 4 else 1)
    assert list((tmp_path / "failures" / ".running").iterdir()) == []


def test_a_job_killed_once_its_record_was_written_did_not_fail(tmp_path: Path) -> None:
    attempt(configuration(tmp_path), SystemExit(-1))
    (tmp_path / "job" / "record.json").touch()
    settle(tmp_path)
    assert list((tmp_path / "failures").glob("*.json")) == []


def test_success_removes_a_failure_of_settings_that_could_not_be_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "dataset.root=${oc.env:EDGE_ASR_TEST_ROOT}"
    attempt(configuration(tmp_path, folder), ValueError("odd"))
    assert len(list((tmp_path / "failures").glob("*.json"))) == 1
    monkeypatch.setenv("EDGE_ASR_TEST_ROOT", "/data")
    attempt(configuration(tmp_path, folder), None, lambda: identify("0123456789abcdef", composed(*POINT), {}))
    assert list((tmp_path / "failures").glob("*.json")) == []
