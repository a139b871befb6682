"""A user's own folder through the real command line: bad clips refused, or left out and told in the record."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from src.data.audio import decode
from src.errors import UserError
from src.project import ROOT
from src.stages.evaluate import Evaluate
from src.stages.point import open_point
from tests import commands
from tests.composed import composed
from tests.data.clips import tone

SPEECH = ROOT / "src" / "sandbox" / "data" / "clean" / "test-00000-of-00001.parquet"
BAD = {"silent": tone(0.5, 440).replace(tone(0.5, 440)[44:], bytes(16_000)), "corrupt": b"nothing to hear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five spoken clips, two bad ones, and one without words."""
    root: Path = tmp_path_factory.mktemp("own")
    rows = pq.read_table(SPEECH).slice(0, 5).to_pylist()
    clips = [(row["id"], row["text"], row["audio"]["bytes"], row["voice"]) for row in rows]
    clips += [(name, "words", audio, "nobody") for name, audio in BAD.items()]
    clips.append(("wordless", "(laughs)", rows[0]["audio"]["bytes"], "nobody"))
    lines = []
    for name, text, audio, speaker in clips:
        (root / name).write_bytes(audio)
        lines.append(json.dumps({"audio": name, "text": text, "id": name, "speaker": speaker}))
    (root / "manifest.jsonl").write_text("\n".join(lines))
    return root


def run(root: Path, output: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    fast = ("tracking=none", "method=fp", "stages=[quantize,evaluate]")
    fast += ("evaluate.bootstrap_samples=100", "evaluate.probe_clips=1")
    return commands.run("src.main", "dataset=local", f"dataset.root={root}", f"output_dir={output}", *fast, *overrides)


def test_bad_audio_stops_the_run_before_anything_is_done(folder: Path, tmp_path: Path) -> None:
    finished = run(folder, tmp_path)
    assert finished.returncode == 1
    (message,) = [line for line in finished.stderr.splitlines() if line.startswith("Error: ")]
    assert "2 of 7 clips of local" in message
    assert "'corrupt' (corrupt: " in message
    assert "'silent' (silent: " in message
    assert "on_bad_audio=skip" in message
    assert not list((tmp_path / "cache").glob("quantize/*"))


def test_bad_audio_is_left_out_and_told_in_the_record(folder: Path, tmp_path: Path) -> None:
    finished = run(folder, tmp_path, "on_bad_audio=skip", "dataset.name=my_words")
    assert finished.returncode == 0, finished.stderr
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    assert record["dataset"] == "my_words"
    evaluated: dict[str, Any] = record["results"]["evaluate"]
    data = evaluated["data"]
    assert evaluated["utterances"] == data["utterances"] == 5
    assert {name: reason.partition(":")[0] for name, reason in data["bad_audio"]["clips"].items()} == {
        "corrupt": "corrupt",
        "silent": "silent",
    }
    assert data["dropped_references"] == {"count": 1, "ids": ["wordless"]}
    seconds = sum(len(decode((folder / f"{name}").read_bytes())) for name in spoken(folder)) / 16_000
    assert data["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert data["subset"] is False
    assert evaluated["wer"] < 20


def test_clips_that_are_tested_on_are_refused_for_calibration_before_anything_is_done(
    folder: Path, tmp_path: Path
) -> None:
    calibration = ("dataset@calib.dataset=local", f"calib.dataset.root={folder}", "on_bad_audio=skip")
    point = open_point(composed(*calibration, f"output_dir={tmp_path}"))
    with pytest.raises(UserError, match=r"^calib\.dataset: 5 of 5 calibration clips are in the test set too"):
        Evaluate().check_data(point)
    Evaluate().check_data(
        open_point(composed(*calibration, f"output_dir={tmp_path}", "method=rtn"))
    )  # reads none of them


def spoken(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("clean-")]
