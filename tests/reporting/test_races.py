"""Races in a report: their plot, and what of their records stands among the points."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.records import RACES, Race
from src.reporting.races import race_front, read_races
from tests.commands import run
from tests.reporting.recorded import record, write, write_race


def test_rounds_on_a_part_of_the_clips_are_no_points_of_the_report(tmp_path: Path) -> None:
    """They would be scores of the same name on other data, for which there is no table."""
    part = record("gptq", "clean", 10.0, fingerprint="gptq-6", subset=6)
    part["results"]["evaluate"]["utterances"] = 6
    write(tmp_path, record("gptq", "clean", 11.0, fingerprint="gptq-None"), part)
    apart = run("src.report", tmp_path, "--plots", "1", "--audio-mb", "0")
    assert "No table: data:" in apart.stderr
    write_race(tmp_path, "r1")
    told = run("src.report", tmp_path, "--plots", "1", "--audio-mb", "0")
    assert told.returncode == 0, told.stderr
    assert "No table" not in told.stderr
    assert "11.00" in told.stdout
    assert {file.name for file in (tmp_path / "report").glob("race-*")} == {"race-r1.png", "race-r1.svg"}


def test_the_front_is_named_and_what_was_not_heard_is_not_drawn(tmp_path: Path) -> None:
    (ax,) = race_front(write_race(tmp_path, "r1")).axes
    assert [each.get_text() for each in ax.texts] == ["rtn w4a16", "gptq w4a16"]
    assert ax.get_xlim()[1] < 16
    assert ax.get_ylim()[1] >= 20, "intervals are within"


def test_a_race_that_was_damaged_is_told_and_left_out(tmp_path: Path) -> None:
    write_race(tmp_path, "r1")
    write_race(tmp_path, "r2")
    damaged = tmp_path / RACES / "r1.json"
    damaged.write_text(damaged.read_text(encoding="utf-8").replace("11.0", "1.0"), encoding="utf-8")
    races, (note,) = read_races(tmp_path)
    assert [race.name for race in races] == ["r2"]
    assert "r1.json (its checksum differs" in note


def test_what_is_no_race_says_by_which_field(tmp_path: Path) -> None:
    plain = write_race(tmp_path, "r1").model_dump(mode="json")
    plain["candidates"][0]["megabytes"] = "much"
    with pytest.raises(ValueError, match=r"candidates\.0\.megabytes: "):
        Race.checked(plain)
