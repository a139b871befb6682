"""The command line as a user meets it: every mistake ends in one sentence, exit code 1, and nothing half-made.

Each command is a process of its own; two run at a time, and the tests look at what they left.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.errors import UserError
from src.runs.sweep import SweepTable, show_sweep
from src.settings import STAGES, Settings
from src.storage.store import write_json
from tests import commands
from tests.reporting import recorded

HUB_SET = "dataset@calib.dataset=librispeech_clean"

# Name: arguments, and what the sentence has to say: field, value found, remedy.
MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "unknown choice": (["method=gtpq"], ["method:", "'gtpq'", "Did you mean 'gptq'?", "fp, gptaq, gptq"]),
    "unknown key": (["wbit=4"], ["wbit:", "no such setting", "Did you mean 'wbits'?", "kvbits"]),
    "unknown parameter of the chosen method": (
        ["method=rtn", "method.rnge=mse"],
        ["method.rnge:", "Did you mean 'range'? Available: _target_, name, range."],
    ),
    "malformed override": (["wbits={"], ["command line:", "'wbits={'", "key=value"]),
    "several values without -m": (["wbits=3,4"], ["wbits:", "'3,4'", "Add -m"]),
    "no such output_dir": (["output_dir={file}/below"], ["{file}/below", "output_dir="]),
    "empty output_dir": (["output_dir="], ["output_dir:", "empty", "output_dir=outputs"]),
    "output_dir where no folder can be": (["output_dir=/proc/x"], ["/proc/x", "output_dir="]),
    "bit width": (["wbits=9"], ["wbits:", "9", "2, 3, 4, 5, 6, 7, 8, or 16"]),
    "group size": (
        ["group_size=128"],
        ["group_size:", "128", "model.encoder.layers.0.self_attn.q_proj", "192", "-1", "96, 64, 48, 32"],
    ),
    "budget that nothing meets": (
        ["method=budget", "method.megabytes=0.1"],
        ["method.megabytes:", "0.1", "The smallest feasible one is", "scope=everything"],
    ),
    "absent folder": (["model.source=./nowhere"], ["model.source:", "'./nowhere'", "openai/whisper-tiny"]),
    "unknown stage": (["stages=[evalute]"], ["stages:", "'evalute'", "Did you mean 'evaluate'?", *STAGES]),
    "stage without its inputs": (["stages=[evaluate]", "tracking=none"], ["stages:", "'evaluate'", "Add quantize"]),
    "no network for a model": (
        ["model=whisper_tiny", "tracking=none"],
        ["model.source:", "'openai/whisper-tiny'", "model.source=DIR"],
    ),
    "no network for a data set": (
        [HUB_SET, "tracking=none"],
        ["dataset.source:", "hf-audio/esb-datasets-test-only-sorted", "--local-dir DIR"],
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a command printed, returned and left in its output folder."""

    process: subprocess.CompletedProcess[str]
    output: Path
    file: Path

    @property
    def sentences(self) -> list[str]:
        return [line for line in self.process.stderr.splitlines() if line.startswith("Error:")]


def run(folder: Path, *arguments: str) -> Outcome:
    """Runs the command where no hub can be reached."""
    folder.mkdir()
    (folder / "file").touch()
    output = folder / "output"
    given = [argument.replace("{file}", str(folder / "file")) for argument in arguments]
    if not any(argument.startswith("output_dir=") for argument in given):
        given.append(f"output_dir={output}")
    process = commands.run("src.main", *given, HF_HUB_OFFLINE="1", HF_HOME=str(folder / "hub"))
    return Outcome(process, output, folder / "file")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All mistakes made, two at a time."""
    folder = tmp_path_factory.mktemp("mistakes")
    with ThreadPoolExecutor(2) as pool:
        ran = pool.map(lambda name: run(folder / name.replace(" ", "_"), *MISTAKES[name][0]), MISTAKES)
        return dict(zip(MISTAKES, ran, strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_sentence_with_field_value_and_remedy(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.process.returncode == 1, outcome.process.stderr
    assert "Traceback" not in outcome.process.stderr
    assert "Error executing job" not in outcome.process.stderr  # Hydra's; it would print all overrides
    [sentence] = outcome.sentences
    for told in MISTAKES[name][1]:
        assert told.replace("{file}", str(outcome.file)) in sentence
    assert sentence.endswith(".")
    assert outcome.process.stderr.rstrip().endswith(sentence)
    assert outcome.process.stdout == ""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_leaves_no_result(outcomes: dict[str, Outcome], name: str) -> None:
    output = outcomes[name].output
    assert not (output / "records").exists()
    assert not (output / "wandb").exists()
    left = [path for path in (output / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize(("error", "traced"), [(UserError("bits", "odd", "Use 4"), False), (ValueError("odd"), True)])
def test_a_failed_point_of_a_sweep_says_why_in_its_log(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: bool
) -> None:
    """A traceback is kept where the user is not to blame."""
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = error
    SweepTable().on_job_end(OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN}}), failed)
    [record] = caplog.records
    assert record.getMessage() == f"failed: {error}"
    assert bool(record.exc_info) is traced


def test_a_sweep_ends_with_tables_of_points_and_failures_and_the_way_to_retry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = {"model": "m", "bits": "w4a16", "dataset": "d", "results": {}}
    for number, method in enumerate(("rtn", "gptq")):
        write_json(tmp_path / str(number) / "record.json", recorded.record(method, "clean", 1.0) | point)
    failure = {"stage": "quantize", "reason": "ValueError: odd", "log": "2/main.log"}
    write_json(tmp_path / "awq/2" / "failure.json", {**point, "method": "awq", "failure": failure})  # a nested subdir
    (tmp_path / "awq/2" / "main.log").touch()
    (tmp_path / ".submitit").mkdir()
    monkeypatch.setattr(SweepTable, "folder", tmp_path)
    monkeypatch.setattr("sys.argv", ["main", "-m", "method=rtn,gptq,awq", "dataset.name=my set"])
    assert show_sweep(ValueError("odd")), "the table tells it"
    told = capsys.readouterr()
    assert "rtn" in told.out
    assert "gptq" in told.out
    row = next(line for line in told.err.splitlines() if "awq" in line)
    assert row.split() == ["awq/2", "m", "awq", "w4a16", "d", "quantize", "ValueError:", "odd", "awq/2/main.log"]
    assert str(tmp_path) in told.err
    *_, count, command = told.err.splitlines()
    assert count == "Error: 1 of 3 points left no record. To run just those again:"
    assert command.strip() == (
        "python -m src.main -m method=rtn,gptq,awq 'dataset.name=my set' sweep.only_missing=true"
    )


def test_what_ends_a_sweep_beside_its_points_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failure = {"stage": None, "reason": "ValueError: odd", "log": None}
    point = {"model": "m", "method": "rtn", "bits": "w4a16", "dataset": "d"}
    write_json(tmp_path / "0" / "failure.json", {**point, "failure": failure})
    monkeypatch.setattr(SweepTable, "folder", tmp_path)
    assert not show_sweep(RuntimeError("the launcher's own"))


def test_a_sweep_without_a_point_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(SweepTable, "folder", tmp_path)
    with pytest.raises(UserError, match="no points"):
        show_sweep()


def test_help_explains_the_groups_and_gives_examples(tmp_path: Path) -> None:
    outcome = run(tmp_path / "help", "--help")
    assert outcome.process.returncode == 0
    told = outcome.process.stdout
    for group in ("model", "method", "bits", "dataset", "calib", "tracking", "hydra/launcher", "experiment"):
        assert f"\n{group}: " in told or f"  {group}  " in told
    for choice in ("sandbox_moonshine", "gptq", "w4a16", "librispeech_clean", "offline"):
        assert choice in told
    assert sum(line.strip().startswith("python -m src.main") for line in told.splitlines()) >= 3
    assert not outcome.output.exists()


def test_overrides_may_stand_on_both_sides_of_the_flag(tmp_path: Path) -> None:
    given = ("stages=[quantize]", "tracking=none", "-m", "method=fp", "wbits=8")
    outcome = run(tmp_path / "both", *given)
    assert outcome.process.returncode == 0, outcome.process.stderr
    assert "#0 : stages=[quantize] tracking=none method=fp wbits=8" in outcome.process.stderr


def test_the_configuration_is_printed_whole(tmp_path: Path) -> None:
    outcome = run(tmp_path / "cfg", "--cfg", "job", "bits=w8a8")
    assert outcome.process.returncode == 0
    printed = yaml.safe_load(outcome.process.stdout)
    assert set(printed) >= set(Settings.model_fields)
    assert (printed["wbits"], printed["abits"]) == (8, 8)
    assert not outcome.output.exists()


@pytest.mark.parametrize("command", ["src.main --help", "src.main --cfg job", "src.dashboard --keys"])
def test_a_reader_that_stops_reading_is_no_error(command: str) -> None:
    """As in ``| head -1``."""
    process = commands.start(*command.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait()
