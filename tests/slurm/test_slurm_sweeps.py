"""Sweeps on a real SLURM cluster, with all that can happen to their jobs; the cluster has no accounting database.

Three sweeps run at the same time: one whose jobs are put back in the queue, and whose terminal dies; one whose jobs are
killed, cancelled, or lose their node; one with a full disk, an unwritable cache and a tracker that cannot be reached.
Then a race, which launches an array a round.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from src.project import ROOT
from tests import commands
from tests.slurm.cluster import Cluster, absent, wait_for
from tests.sweepers import racing

pytestmark = [
    pytest.mark.skipif(absent() is not None, reason=str(absent())),
    pytest.mark.timeout(900),  # a machine with much else to do
]

JOBS = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
SMALL = (
    "calib.n=4",
    "evaluate.bootstrap_samples=100",
    "evaluate.probe_clips=0",
    "profile.repeats=2",
    "profile.max_load=1000",
)
WHOLE = ("method=gptq", "wbits=3", "dataset.limit=12", "evaluate.batch_size=2", "tracking=none", *SMALL)
SHORT = ("method=rtn", "stages=[quantize]", "dataset.limit=4", *SMALL)
UNREACHABLE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}


@dataclass
class Sweep:
    """A sweep that runs, its outputs, and later what its launcher said."""

    launcher: subprocess.Popen[str]
    folder: Path
    told: str = ""
    failed: str = ""

    def job(self, number: int) -> str:
        """SLURM's name of a job, once it is known."""
        names = ("*_*_submitted.pkl", f"*_{number}_submitted.pkl")
        submitted = self.folder / ".submitit"
        wait_for("the array", lambda: any(submitted.rglob(names[1])))
        return next(submitted.rglob(names[1])).name.removesuffix("_submitted.pkl")

    def end(self) -> None:
        self.told, self.failed = self.launcher.communicate(timeout=600)


def launch(cluster: Cluster, folder: Path, *arguments: str, **changes: str) -> Sweep:
    """Starts a sweep in a process of its own, as from a terminal that can be closed."""
    heeds_its_terminal = ("env", "--default-signal=HUP")  # also where the tests run under nohup
    sweep = commands.command("src.main", "-m", *JOBS, f"hydra.sweep.dir={folder}", *arguments)
    command = [*heeds_its_terminal, *sweep]
    environment = commands.environment(**cluster.environment, **changes)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    return Sweep(process, folder)


def marks(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (output / "failures" / ".running").glob("*.json")]


def begun(output: Path, override: str) -> bool:
    return any(override in mark["point"]["overrides"] for mark in marks(output))


def failures(output: Path) -> dict[int, dict[str, Any]]:
    """Failure records by the weight bits of the point."""
    found = [json.loads(path.read_text()) for path in (output / "failures").glob("*.json")]
    return {record["wbits"]: record for record in found}


def lasting(output: Path) -> dict[str, Any]:
    """The one record below ``output`` without clocks and places."""
    (path,) = (output / "records").glob("*.json")
    places = ("times", "measured", "provenance", "settings", "sha256")
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in places}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o711)  # munged wants a socket that everybody can reach
        cluster = Cluster.start(Path(folder), nodes=12)
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A disk of one megabyte; None where none may be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@dataclass(frozen=True)
class Outcomes:
    """The three sweeps; ``put_back`` has an output folder a job, by what happened to it."""

    put_back: Sweep
    killed: Sweep
    refused: Sweep
    root: Path
    cluster: Cluster


STAGES = {  # how a job is put back, by the folder of results that is being made when it happens
    "calibrate": Cluster.warn,
    "quantize": Cluster.requeue,
    "transcripts": Cluster.preempt,
    "latency": Cluster.requeue,
}
# Files of finished parts, and their lines once there is one: the first says what the others depend on, and blocks come
# after what precedes them.
FINISHED = {"calibrate": ("batches", 2), "quantize": ("blocks", 3), "transcripts": ("batches", 2)}


def put_back(cluster: Cluster, sweep: Sweep, root: Path, number: int, stage: str) -> None:
    """Waits until the job is in the stage and has finished a part of it; then it happens."""
    job, made = sweep.job(number), root / stage / "cache" / stage
    if stage in FINISHED:
        name, lines = FINISHED[stage]
        parts = f"*.partial/{name}.progress"
        wait_for(stage, lambda: any(path.read_bytes().count(b"\n") >= lines for path in made.glob(parts)))
    else:
        wait_for(stage, lambda: any(made.glob("*.partial")))
    STAGES[stage](cluster, job)


@pytest.fixture(scope="module")
def outcomes(cluster: Cluster, small_disk: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    root = tmp_path_factory.mktemp("sweeps")
    outputs = ",".join(str(root / name) for name in (*STAGES, "undisturbed"))
    back = launch(cluster, root / "back", f"output_dir={outputs}", *WHOLE)
    killed = launch(cluster, root / "killed", f"output_dir={root}/out", "wbits=2,3,4,5", *SHORT, "tracking=none")
    (root / "unwritable").mkdir()
    (root / "unwritable" / "cache").touch()
    places = [root / "reachable", root / "unwritable", *([small_disk] if small_disk else [])]
    refused = launch(
        cluster,
        root / "refused",
        f"output_dir={','.join(map(str, places))}",
        "wbits=4",
        *SHORT,
        "tracking=wandb",
        **UNREACHABLE,
    )
    with ThreadPoolExecutor(len(STAGES)) as pool:
        happening = [pool.submit(put_back, cluster, back, root, n, stage) for n, stage in enumerate(STAGES)]
        back.job(0)
        os.killpg(back.launcher.pid, signal.SIGHUP)  # its terminal dies
        for number, (wbits, fate) in enumerate({3: cluster.kill, 4: cluster.cancel, 5: cluster.lose_node}.items(), 1):
            wait_for("a job to begin", lambda wbits=wbits: begun(root / "out", f"wbits={wbits}"))  # type: ignore[misc]
            fate(killed.job(number))
        for each in happening:
            each.result()
    for sweep in (back, killed, refused):
        sweep.end()
    wait_for("the last job", cluster.idle)
    return Outcomes(back, killed, refused, root, cluster)


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_put_back_in_the_queue_ends_with_the_record_of_an_undisturbed_one(outcomes: Outcomes, stage: str) -> None:
    number = list(STAGES).index(stage)
    job = outcomes.put_back.job(number)
    log = next(outcomes.put_back.folder.rglob(f"{job}_0_log.out")).read_text()
    assert log.count("Loading pickle") == 2, "it was started again"
    assert lasting(outcomes.root / stage) == lasting(outcomes.root / "undisturbed")
    assert not list((outcomes.root / stage / "failures").glob("*.json"))


def test_finished_stages_and_blocks_are_not_made_again(outcomes: Outcomes) -> None:
    """Every stage but the interrupted one is announced once, also in a job that was started twice."""
    for number, stage in enumerate(STAGES):
        log = (outcomes.put_back.folder / str(number) / "main.log").read_text()
        announced = {each: len(re.findall(rf": {each}: \d* ?", log)) for each in ("calibrate", "profile")}
        interrupted = {"latency": "profile"}.get(stage, stage)
        assert {each for each, count in announced.items() if count > 1} <= {interrupted}
        if log.count("quantize: sandbox_moonshine-gptq") > 1:
            assert re.search(r"going on after [1-9]\d* of \d+ blocks", log)


def test_jobs_outlive_the_terminal_and_the_report_finds_their_results(outcomes: Outcomes) -> None:
    assert outcomes.put_back.launcher.returncode == -signal.SIGHUP
    told = commands.run("src.report", outcomes.root / "calibrate")
    assert told.returncode == 0, told.stderr
    assert "gptq" in told.stdout


def test_the_other_points_finish_and_the_launcher_says_which_did_not(outcomes: Outcomes) -> None:
    killed, output = outcomes.killed, outcomes.root / "out"
    assert killed.launcher.returncode == 1
    assert set(failures(output)) == {3, 4}
    finished = {json.loads(path.read_text())["wbits"] for path in (output / "records").glob("*.json")}
    assert finished == {2, 5}, "the point whose node was lost was run on another"
    assert failures(output)[3]["failure"]["kind"] == "killed: signal 9"
    assert failures(output)[4]["failure"]["kind"] == "cancelled"
    rows = [line for line in killed.failed.splitlines() if re.match(r"\d +sandbox_moonshine", line)]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert "killed by signal 9" in rows[0]
    assert "cancelled" in rows[1]
    assert "Traceback" not in killed.failed


def test_the_printed_command_is_the_sweep_s_own_for_what_is_missing(outcomes: Outcomes) -> None:
    printed = shlex.split(outcomes.killed.failed.rstrip().splitlines()[-1])
    given = list(map(str, outcomes.killed.launcher.args))  # type: ignore[arg-type]
    assert printed == ["python", *given[given.index(sys.executable) + 1 :], "sweep.only_missing=true"]


def test_the_printed_command_runs_just_those_and_their_failure_records_go(outcomes: Outcomes, tmp_path: Path) -> None:
    """In a folder of its own, which is the default of ``hydra.sweep.dir``."""
    printed = shlex.split(outcomes.killed.failed.rstrip().splitlines()[-1])
    here = {f"hydra.sweep.dir={outcomes.root}/killed": f"hydra.sweep.dir={tmp_path}"}
    again = commands.run(*(here.get(each, each) for each in printed[2:]), **outcomes.cluster.environment)
    assert again.returncode == 0, again.stderr
    output = outcomes.root / "out"
    assert failures(output) == {}
    assert {json.loads(path.read_text())["wbits"] for path in (output / "records").glob("*.json")} == {2, 3, 4, 5}
    assert len(list((tmp_path / ".submitit").glob("*/*_submitted.pkl"))) == 2, "jobs"


def test_an_unwritable_cache_fails_its_point_only(outcomes: Outcomes) -> None:
    (record,) = failures(outcomes.root / "unwritable").values()
    assert record["failure"]["kind"] == "UserError"
    assert "cannot be written" in record["failure"]["reason"]
    assert "open_store" in record["failure"]["traceback"]
    assert outcomes.refused.launcher.returncode == 1
    assert lasting(outcomes.root / "reachable")["wbits"] == 4


def test_an_unreachable_tracker_fails_no_point(outcomes: Outcomes) -> None:
    log = (outcomes.refused.folder / "0" / "main.log").read_text()
    assert "the run is kept offline" in log
    assert list((outcomes.root / "reachable" / "wandb").glob("offline-run-*"))


def test_a_full_disk_leaves_a_record_on_that_disk(outcomes: Outcomes, small_disk: Path | None) -> None:
    if small_disk is None:
        pytest.skip("no disk may be mounted here")
    (record,) = failures(small_disk).values()
    assert "No space left on device" in record["failure"]["reason"]
    assert record["failure"]["stage"] == "quantize"
    assert "Traceback" in record["failure"]["traceback"]


def fared(told: str) -> list[str]:
    """The table of a race, and what stands below."""
    lines = told.splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("candidate")) :]


def test_a_race_ends_as_in_a_single_process(outcomes: Outcomes, tmp_path: Path) -> None:
    """Once the cluster is idle: a job here is one of those that a sweep waits for."""
    before = len(outcomes.cluster.jobs())
    asked = ("wbits=2,4", racing.BUDGET)
    away = launch(outcomes.cluster, tmp_path / "jobs", *racing.arguments(tmp_path / "away", *asked)[1:])
    away.end()
    assert away.launcher.returncode == 0, away.failed
    assert len(outcomes.cluster.jobs()) - before == 5, "two sizes, two in the first round, one in the last"
    here = commands.run("src.main", *racing.arguments(tmp_path / "here", *asked))
    assert here.returncode == 0, here.stderr
    assert fared(away.told) == fared(here.stdout)
    assert racing.lasting(tmp_path / "away") == racing.lasting(tmp_path / "here")
