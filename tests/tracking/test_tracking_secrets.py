"""The real command with secrets around it: nothing that it writes, prints or uploads holds one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import run
from secrets_planted import KEYS, found
from wandb_reader import OfflineRun, read_runs
from wandb_server import API_KEY, ENTITY, Wandb, wandb_server

from src.project import ROOT
from src.tracking.keys import HEADLINES, METRICS, TABLES

HUB_TOKEN = "hf_" + "fAkEtOkEn" * 3
PASSWORD = "correct-horse-battery"
HOME = "home-of-the-user"
SMALL = (
    *("dataset=sandbox_other", "dataset.limit=4", "calib.n=2", "evaluate.probe_clips=4"),
    *("profile.repeats=1", "profile.max_load=1000"),  # other tests may run beside
)
CONDITIONAL = (  # figures that not every point has
    *("evaluate/long_form_", "evaluate/versus_fp_relative", "export/"),
    *("evaluate/runtime_", "evaluate/versus_simulated_", "evaluate/changed_from_simulated_", "evaluate/simulated_wer"),
    *("evaluate/exported_bytes", "exported_bytes", "quantize/expected_nats", "race/"),
)


@dataclass
class Finished:
    """A point that ran with secrets in its environment and its models and data below the home directory."""

    outputs: Path
    home: Path
    printed: str
    run: OfflineRun


PLANTED = {  # as arguments of a command line, each with what must not be seen of it
    "+hydra.job.env_set.ANYTHING='not-to-be-known-7'": "not-to-be-known-7",
    "hydra.job.env_copy=[COPIED]": "copied-from-here-8",
    f"edge_device.name='pi {KEYS['jwt']}'": KEYS["jwt"],
    "calib.dataset.revision='https://me:hunter2-x@host/?sig=s1gned&a=b ${oc.env:SERVICE_TOKEN}'": "s1gned",
}
NAMES = ("tracking.entity='${oc.env:ORDINARY}'", "tracking.project='of somebody@x password=short'")
ENVIRONMENT = {"COPIED": "copied-from-here-8", "SERVICE_TOKEN": "odd-value-of-a-token", "ORDINARY": KEYS["github"]}


def secrets(home: Path) -> dict[str, str]:
    return {
        "WANDB_API_KEY": API_KEY,
        "HF_TOKEN": HUB_TOKEN,
        "DATABASE_PASSWORD": PASSWORD,
        "HOME": str(home),
        **ENVIRONMENT,
    }


def assert_clean(written: bytes) -> None:
    for secret in (
        API_KEY,
        HUB_TOKEN,
        HUB_TOKEN[:20],
        PASSWORD,
        HOME,
        "hunter2-x",
        *PLANTED.values(),
        *ENVIRONMENT.values(),
    ):
        position = written.find(secret.encode())
        assert position < 0, written[max(0, position - 200) : position + 100]


def everything_in(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"\n".join(str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in files)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = tmp_path_factory.mktemp(HOME)
    shutil.copytree(ROOT / "src/sandbox/models/moonshine", home / "moonshine")
    shutil.copytree(ROOT / "src/sandbox/data", home / "data")
    outputs = tmp_path_factory.mktemp("outputs")
    data = (f"dataset.root={home / 'data'}", f"calib.dataset.root={home / 'data'}")
    data = (*data, "dataset.source='https://me:hunter2-x@host/x'")  # which nothing reads beside a root
    places = (f"output_dir={outputs}", f"model.source={home / 'moonshine'}", *data)
    given = (*SMALL, "wbits=2", "evaluate.bootstrap_samples=100", *places, *PLANTED)
    done = run("src.main", "-m", *given, **secrets(home))
    assert done.returncode == 0, done.stderr
    (found,) = read_runs(outputs)
    return Finished(outputs, home, done.stdout + done.stderr, found)


def test_no_byte_that_a_point_writes_or_prints_is_a_secret_or_the_home_directory(finished: Finished) -> None:
    written = everything_in(finished.outputs)
    assert b"moonshine" in written  # it does tell the model's path, from the home directory on
    assert_clean(written)
    assert_clean(finished.printed.encode())


def test_a_token_in_a_setting_is_not_repeated(tmp_path: Path) -> None:
    source = f"https://somebody:{HUB_TOKEN}@example.org/model"
    refused = run("src.main", "-m", f"model.source='{source}'", f"output_dir={tmp_path / 'out'}", **secrets(tmp_path))
    assert refused.returncode == 1
    assert "model.source: there is no folder 'https://***@example.org/model'" in refused.stderr
    assert_clean(everything_in(tmp_path / "out"))
    assert_clean((refused.stdout + refused.stderr).encode())


def test_jobs_get_references_and_leave_no_secret_in_what_is_pickled_where_one_fails(tmp_path: Path) -> None:
    """Of two jobs, one of which fails of the secret itself: pickles, logs, failures, multirun.yaml."""
    given = (
        "method=rtn",
        f"method.range=mse,{KEYS['openai']}",
        "stages=[quantize]",
        f"tracking.group={KEYS['github']}",
    )
    how = ("hydra/launcher=parallel", f"output_dir={tmp_path}/out")
    done = run("src.main", "-m", *given, *how, *PLANTED, *NAMES, **{**secrets(tmp_path), "HOME": os.environ["HOME"]})
    assert done.returncode == 1, done.stderr
    assert "method.range: '***' is no choice" in done.stderr
    assert len(list((tmp_path / "out/records").glob("*.json"))) == 1
    assert len(list((tmp_path / "out/sweeps").rglob("*_result.pkl"))) == 2
    assert read_runs(tmp_path / "out")[0].group == "***"
    (tmp_path / "out/printed").write_text(done.stdout + done.stderr)
    hidden = [*PLANTED.values(), *ENVIRONMENT.values(), "hunter2-x", "=short", KEYS["openai"], API_KEY, HUB_TOKEN]
    assert found(hidden, tmp_path / "out") == {}


def test_a_launcher_s_own_setting_with_a_secret_is_refused(tmp_path: Path) -> None:
    """It is a line of a script that submitit writes."""
    setup = f"hydra.launcher.submitit_folder={tmp_path}/{KEYS['aws']}"
    told = run("src.main", "-m", "wbits=2", "hydra/launcher=parallel", setup, f"output_dir={tmp_path}")
    assert told.returncode == 1
    assert "Error: hydra.launcher.submitit_folder: it holds a key or token" in told.stderr
    assert_clean(told.stderr.encode())


def test_a_point_logs_the_documented_figures_and_tables_and_no_others(finished: Finished) -> None:
    assert "Weights & Biases failed" not in finished.printed
    logged = {key for key in finished.run.summary if not key.startswith("_")}
    tables = {key.rpartition("/")[0] for key in logged if key.endswith("/_type")}
    figures = {key for key in logged if key.rpartition("/")[0] not in tables}
    others = {"evaluate/members", "measure/runtimes"}  # a group's, and of runtimes asked for
    assert tables == {key for key in TABLES.keys() - others if not key.startswith("race/")}
    assert figures <= METRICS.keys() | HEADLINES.keys()
    absent = (METRICS.keys() | HEADLINES.keys()) - figures
    assert not {key for key in absent if not key.startswith(CONDITIONAL)}


def test_runs_can_be_found_by_name_group_tags_and_type(finished: Finished) -> None:
    found = finished.run
    assert found.name == "sandbox_moonshine-gptq-w2a16-sandbox_other"
    assert found.tags == ["sandbox_moonshine", "gptq", "w2a16", "sandbox_other"]
    assert found.job_type == "point"
    (sweep,) = (finished.outputs / "sweeps").glob("*/*")
    assert found.group == f"{sweep.parent.name}_{sweep.name}"


def sync(outputs: Path, server: Wandb, *arguments: str, **changes: str) -> tuple[int, str]:
    done = run("src.tracking.sync", outputs, *arguments, **{**server.environment, **changes})
    return done.returncode, done.stdout + done.stderr


def test_offline_runs_are_uploaded_once_and_without_secrets(finished: Finished) -> None:
    name = finished.run.directory.name
    with wandb_server() as server:
        status, printed = sync(finished.outputs, server, "--dry-run", HOME=str(finished.home))
        assert (status, server.bodies) == (0, [])
        assert f"would upload {name}" in printed

        server.refused = "UpsertBucket"
        status, printed = sync(finished.outputs, server, HOME=str(finished.home))
        assert status == 1
        assert f"not uploaded: {name}" in printed

        server.refused = ""
        status, printed = sync(finished.outputs, server, HOME=str(finished.home))
        assert status == 0, printed
        assert f"1 uploaded to {server.url}, 0 failed" in printed
        sent = b"\n".join(server.bodies)
        assert_clean(sent)
        assert not [path for path in (str(ROOT), sys.prefix) if path.encode() in sent]  # not even of the program
        begun = server.of("UpsertBucket")[0]
        assert (begun["name"], begun["project"], begun["tags"]) == (finished.run.id, "edge-asr", finished.run.tags)
        assert {"model", "calibration", "transcripts"} <= {
            each["input"]["artifactTypeName"] for each in server.of("CreateArtifact")
        }

        before = len(server.bodies)
        status, printed = sync(finished.outputs, server)
        assert (status, len(server.bodies)) == (0, before)
        assert "0 of 1 offline runs" in printed


def test_what_stands_in_the_way_of_an_upload_is_said_at_once(finished: Finished, tmp_path: Path) -> None:
    marks = list(finished.run.directory.glob("*.synced"))
    for mark in marks:
        mark.unlink()
    nowhere = Wandb("http://127.0.0.1:9")
    status, printed = sync(finished.outputs, nowhere)
    assert status == 1
    assert "Error: WANDB_BASE_URL: http://127.0.0.1:9 does not answer" in printed
    status, printed = sync(finished.outputs, nowhere, WANDB_API_KEY="", HOME=str(tmp_path))
    assert status == 1
    assert "Error: WANDB_API_KEY: there is no API key for http://127.0.0.1:9" in printed
    status, printed = sync(tmp_path, nowhere)
    assert status == 1
    assert "holds no offline run" in printed


def test_the_dashboard_is_saved_where_there_is_a_server(tmp_path: Path) -> None:
    with wandb_server() as server:
        saved = run("src.dashboard", "--entity", ENTITY, "--project", "p", **server.environment, HOME=str(tmp_path))
        assert saved.returncode == 0, saved.stderr
        (view,) = server.of("UpsertView2")
        assert saved.stdout.strip().startswith(f"{server.url}/{ENTITY}/p?nw=")
        assert (view["entityName"], view["projectName"], view["displayName"]) == (ENTITY, "p", "Edge ASR")
        assert len(json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]) == 4
        server.refused = "UpsertView2"
        refused = run("src.dashboard", "--entity", ENTITY, **server.environment, HOME=str(tmp_path))
    assert refused.returncode == 1
    assert f"refused the page of {ENTITY}/edge-asr" in refused.stderr
    assert "Traceback" not in refused.stderr
