from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run

FIELD = (
    "model=sandbox_moonshine",
    "method=rtn",
    "wbits=2,4,8",
    "scope=everything",
    "group_size=-1",
    "dataset.limit=12",
)


def fit(outputs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    chosen = ("hydra/sweeper=fit", "hydra.sweeper.clips=[6]", "hydra.sweeper.candidates=[]")
    return run("src.main", "-m", *FIELD, *chosen, "tracking=none", f"output_dir={outputs}", *more)


def race(outputs: Path) -> dict[str, dict[str, Any]]:
    """What the last one told, by candidate."""
    newest = max(outputs.glob("sweeps/**/race.json"), key=lambda path: path.stat().st_mtime_ns)
    return {" ".join(each["overrides"]): each for each in json.loads(newest.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a race for three megabytes: 8 bits take more."""
    folder = tmp_path_factory.mktemp("race")
    done = fit(folder, "hydra.sweeper.megabytes=3")
    assert done.returncode == 0, done.stderr
    assert "chosen" in done.stdout
    return folder


def test_the_best_that_fits_is_chosen_and_what_loses_is_heard_no_further(outputs: Path) -> None:
    found = race(outputs)
    assert found["wbits=4"]["outcome"] == "chosen"
    assert found["wbits=4"]["megabytes"] <= 3
    assert found["wbits=8"]["outcome"] == "too large"
    assert found["wbits=8"]["wer"] == []
    assert found["wbits=2"]["outcome"].endswith("on 6 clips")
    assert len(found["wbits=2"]["wer"]) == 1


def test_the_figures_are_those_of_the_points(outputs: Path) -> None:
    chosen = race(outputs)["wbits=4"]
    record = json.loads((outputs / "records" / f"{chosen['records'][-1]}.json").read_text(encoding="utf-8"))
    assert record["results"]["evaluate"]["wer"] == chosen["wer"][-1]
    assert record["results"]["quantize"]["disk_bytes"] == chosen["megabytes"] * 1e6
    assert record["subset"] == 12


def test_with_a_bound_on_the_error_rate_the_smallest_that_meets_it_is_chosen(outputs: Path) -> None:
    done = fit(outputs, "hydra.sweeper.wer=15")
    assert done.returncode == 0, done.stderr
    found = race(outputs)
    assert found["wbits=4"]["outcome"] == "chosen"
    assert found["wbits=8"]["wer"][-1] <= 15
    assert "above 15 %" in found["wbits=2"]["outcome"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("hydra.sweeper.megabytes=1", ["hydra.sweeper.megabytes:", "wbits=2 takes 1.32", "add candidates"]),
        ("hydra.sweeper.megabytes=few", ["hydra.sweeper.megabytes:", "'few'", "null"]),
        ("hydra.sweeper.clips=[8,4]", ["hydra.sweeper.clips:", "[8, 4]", "[20,60]"]),
    ],
)
def test_what_cannot_be_met_is_said(outputs: Path, override: str, told: list[str]) -> None:
    done = fit(outputs, override)
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert all(each in sentence for each in told), sentence
    assert done.returncode == 1
