"""Real offline runs, read back from their files."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import wandb
from omegaconf import OmegaConf
from wandb_reader import read_runs

from src.project import ROOT
from src.settings import TrackingSettings
from src.tracking import RunInfo, connection, open_tracker, tracker

HUB_TOKEN = "hf_" + "fAkEtOkEn" * 3


@pytest.fixture(autouse=True)
def _no_wandb_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)


def settings(mode: str = "offline") -> TrackingSettings:
    return TrackingSettings.model_validate({"mode": mode, "project": "tests", "entity": None, "group": None})


def info(directory: Path, run_id: str = "point-1", config: dict[str, object] | None = None) -> RunInfo:
    return RunInfo(run_id, "tiny gptq w4a16", "sweep", "ptq", ("whisper", "gptq"), config or {}, directory)


@pytest.mark.parametrize(("choice", "mode"), [("offline", "offline"), ("wandb", "online"), ("none", "none")])
def test_choices_of_the_command_line_are_valid_settings(choice: str, mode: str) -> None:
    composed = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "tracking" / f"{choice}.yaml"))
    assert TrackingSettings.model_validate(composed).mode == mode


def test_metrics_are_namespaced_by_stage_and_kept_in_the_summary(tmp_path: Path) -> None:
    with open_tracker(settings(), info(tmp_path)) as run:
        run.log("calibrate", {"clips": 16, "seconds": 1.5})
        run.log("evaluate", {"resampled": "speaker"})
        run.log("evaluate", {"wer": 12.5, "cer": 4.0})
        run.log("quantize", {"disk_bytes": 1234})
    (read,) = read_runs(tmp_path)
    assert read.logged("calibrate/clips") == [16]
    assert read.logged("calibrate/seconds") == [1.5]
    assert read.summary["calibrate/seconds"] == 1.5
    assert read.summary["evaluate/resampled"] == "speaker"
    assert (read.summary["wer"], read.summary["disk_bytes"]) == (12.5, 1234)
    assert "cer" not in read.summary
    assert read.exit_code == 0


def test_what_is_not_in_the_documented_list_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_tracker(settings(), info(tmp_path)) as run:
        run.log("evaluate", {"wer": 1.0, "mood": 3})
        run.table("evaluate", "moods", ["a"], [[1]])
    (read,) = read_runs(tmp_path)
    assert run.failed
    assert not {key for key in read.summary if not key.startswith("_")}
    assert not read.artifacts
    (message,) = warnings_of(caplog)
    assert "not listed in src.tracking.keys: evaluate/mood" in message


def test_identity_and_redacted_config_are_stored(tmp_path: Path) -> None:
    config = {"model": {"name": "tiny"}, "hf_token": HUB_TOKEN, "wbits": 4}
    with open_tracker(settings(), info(tmp_path, config=config)) as run:
        run.start()
    (read,) = read_runs(tmp_path)
    assert (read.id, read.name, read.group, read.job_type) == ("point-1", "tiny gptq w4a16", "sweep", "ptq")
    assert (read.project, read.tags) == ("tests", ["whisper", "gptq"])
    assert (read.config["model"], read.config["wbits"], read.config["hf_token"]) == ({"name": "tiny"}, 4, "***")


def test_tables_keep_rows_of_mixed_types(tmp_path: Path) -> None:
    with open_tracker(settings(), info(tmp_path)) as run:
        run.table("quantize", "layers", ["path", "error"], [["encoder.0", 0.25], ["head", None], ["conv", "16 bits"]])
    (read,) = read_runs(tmp_path)
    table = read.table("quantize/layers")
    assert table["columns"] == ["path", "error"]
    assert table["data"] == [["encoder.0", 0.25], ["head", None], ["conv", "16 bits"]]


def test_tables_are_bounded_in_rows_and_in_the_length_of_a_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = [[i, "la " * 5000] for i in range(2005)]
    with open_tracker(settings(), info(tmp_path)) as run:
        run.table("quantize", "layers", ["number", "text"], rows)
    (read,) = read_runs(tmp_path)
    data = read.table("quantize/layers")["data"]
    assert [row[0] for row in data] == list(range(2000))
    assert {row[1] for row in data} == {("la " * 5000)[:1999] + "…"}
    assert "gets 2000 of the 2005 rows of quantize/layers" in caplog.text


def test_the_audio_table_is_bounded_in_clips_and_seconds(tmp_path: Path) -> None:
    clips = [(np.full(31 * 1000, i / 100, np.float32), 1000) for i in range(20)]
    with open_tracker(settings(), info(tmp_path)) as run:
        rows = [[f"utterance-{i}", "hello"] for i in range(20)]
        run.audio_table("evaluate", "worst", ["id", "hypothesis"], rows, clips, [f"clip {i}" for i in range(20)])
    (read,) = read_runs(tmp_path)
    table = read.table("evaluate/worst")
    assert table["columns"] == ["id", "hypothesis", "audio"]
    assert [row[0] for row in table["data"]] == [f"utterance-{i}" for i in range(16)]
    assert table["data"][3][2]["caption"] == "clip 3"
    assert "audio-file" in json.dumps(table["column_types"])  # what the web page needs to play it
    (artifact,) = read.artifacts.values()
    audio = [entry for entry in artifact.manifest.contents if entry.path.endswith(".wav")]
    assert len(audio) == 16
    assert {entry.size for entry in audio} == {44 + 30 * 1000 * 2}  # 16-bit PCM


def test_artifacts_name_their_inputs_and_point_at_the_files(tmp_path: Path) -> None:
    statistics, weights = tmp_path / "statistics.bin", tmp_path / "weights.bin"
    statistics.write_bytes(b"statistics")
    weights.write_bytes(b"weights")
    with open_tracker(settings(), info(tmp_path)) as run:
        run.artifact("calibrate", "calibration/a1", "calibration", {"statistics.bin": statistics}, {"n": 16})
        run.artifact("quantize", "model-b2", "quantized-model", {"q/w": weights}, {"bits": 4}, uses=["calibration/a1"])
    (read,) = read_runs(tmp_path)
    calibration, model = read.artifacts["calibration-a1"], read.artifacts["model-b2"]
    assert (calibration.type, model.type) == ("calibration", "quantized-model")
    assert set(model.aliases) == {"latest", "point-1"}
    metadata = json.loads(model.metadata)
    assert (metadata["bits"], metadata["stage"], metadata["inputs"]) == (4, "quantize", ["calibration-a1"])
    (entry,) = model.manifest.contents
    assert (entry.path, entry.local_path) == ("q/w", str(weights))


def test_large_files_are_described_but_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "MAX_ARTIFACT_FILE_BYTES", 10)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x" * 10)
    large.write_bytes(b"x" * 11)
    with open_tracker(settings(), info(tmp_path)) as run:
        run.artifact("quantize", "model", "quantized-model", {"small": small, "large": large}, {})
    (read,) = read_runs(tmp_path)
    assert [entry.path for entry in read.artifacts["model"].manifest.contents] == ["small"]
    assert json.loads(read.artifacts["model"].metadata)["not_uploaded"] == {"large": 11}


def test_points_of_one_process_do_not_merge(tmp_path: Path) -> None:
    for point in (1, 2):
        with open_tracker(settings(), info(tmp_path, f"point-{point}")) as run:
            run.log("evaluate", {"wer": point})
    first, second = read_runs(tmp_path)
    assert (first.id, second.id) == ("point-1", "point-2")
    assert (first.logged("evaluate/wer"), second.logged("evaluate/wer")) == ([1], [2])


def test_a_point_run_again_keeps_its_id(tmp_path: Path) -> None:
    for stage in ("calibrate", "evaluate"):
        with open_tracker(settings(), info(tmp_path)) as run:
            run.log(stage, {"seconds": 1})
    first, second = read_runs(tmp_path)
    assert first.id == second.id == "point-1"
    assert first.directory != second.directory


@pytest.mark.parametrize("logs_before", [True, False])
def test_a_failed_body_is_recorded_and_its_exception_propagates(tmp_path: Path, logs_before: bool) -> None:
    def point() -> None:
        with open_tracker(settings(), info(tmp_path)) as run:
            if logs_before:
                run.log("calibrate", {"clips": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        point()
    (read,) = read_runs(tmp_path)
    assert read.exit_code == 1


def test_a_point_that_logs_nothing_leaves_no_run(tmp_path: Path) -> None:
    with open_tracker(settings(), info(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_the_users_environment_is_left_as_it_was(tmp_path: Path) -> None:
    before = {name for name in os.environ if name.startswith("WANDB_")} | {"WANDB_SERVICE"}
    with open_tracker(settings(), info(tmp_path)) as run:
        run.log("calibrate", {"clips": 1})
    assert {name for name in os.environ if name.startswith("WANDB_")} <= before


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_unusable_directory_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "occupied"
    file.write_text("")
    with open_tracker(settings(), info(file / "run")) as run:
        run.log("calibrate", {"clips": 1})
        run.table("evaluate", "probe", ["a"], [[1]])
    (message,) = warnings_of(caplog)
    assert "metrics of calibrate" in message
    assert "occupied" in message


def test_a_run_that_cannot_begin_is_tried_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def init(**arguments: object) -> None:
        attempts.append(arguments)
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", init)
    with open_tracker(settings(), info(tmp_path)) as run:
        run.log("calibrate", {"clips": 1})
        run.log("evaluate", {"wer": 1})
    assert len(attempts) == 1
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("way", ["waits for ever", "exits"])
def test_a_service_that_does_not_end_well_neither_holds_nor_ends_the_job(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = threading.Event()

    def teardown() -> None:
        called.set()
        if way == "exits":
            sys.exit(1)
        threading.Event().wait()

    monkeypatch.setattr(wandb, "teardown", teardown)
    monkeypatch.setattr(connection, "_TEARDOWN_SECONDS", 0.1)
    monkeypatch.setenv("HOME", str(tmp_path))  # where no key is
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with open_tracker(settings("online"), info(tmp_path)) as run:
        run.log("evaluate", {"wer": 3})
    assert called.is_set()
    (read,) = read_runs(tmp_path)
    assert read.logged("evaluate/wer") == [3]


def test_what_fails_does_not_stop_what_follows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_tracker(settings(), info(tmp_path)) as run:
        run.artifact("calibrate", "calibration", "calibration", {"absent": tmp_path / "absent"}, {})
        run.table("evaluate", "probe", ["a", "b"], [[1]])
        run.log("evaluate", {"wer": 3})
    (read,) = read_runs(tmp_path)
    assert read.logged("evaluate/wer") == [3]
    assert read.exit_code == 0
    (message,) = warnings_of(caplog)
    assert "the artifact calibration" in message


def test_mode_none_writes_nothing(tmp_path: Path) -> None:
    with open_tracker(settings("none"), info(tmp_path)) as run:
        run.start()
        run.log("calibrate", {"clips": 1})
        run.artifact("calibrate", "a", "b", {"absent": tmp_path / "absent"}, {})
    assert not list(tmp_path.iterdir())
