from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from src.reporting.marks import front, marks
from src.reporting.panels import panels
from tests.reporting.recorded import points, record, write


def versioned(fingerprint: str, **versions: str) -> dict[str, Any]:
    changed = record("rtn", "clean", 3.0, fingerprint=fingerprint)
    changed["versions"] = {**changed["versions"], **versions}
    return changed


def test_every_version_has_a_panel_of_its_own_that_says_which(tmp_path: Path) -> None:
    weights: Any = {"sha256": "abc"}
    write(tmp_path, versioned("a"), versioned("b", normalizer="other/2"), versioned("c", model=weights))
    found = panels(points(tmp_path))
    assert [len(panel.points) for panel in found] == [1, 1, 1]
    assert {panel.name for panel in found} == {
        "sandbox_moonshine, clean, normalizer other/2, weights unknown",
        "sandbox_moonshine, clean, normalizer whisper-english/0.1, weights abc",
        "sandbox_moonshine, clean, normalizer whisper-english/0.1, weights unknown",
    }


def test_versions_are_not_named_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, record("rtn", "clean", 2.0), record("rtn", "other", 2.0))
    assert [panel.name for panel in panels(points(tmp_path))] == [
        "sandbox_moonshine, clean",
        "sandbox_moonshine, other",
    ]


def test_a_method_that_was_run_twice_makes_two_series_named_by_what_differs(tmp_path: Path) -> None:
    first, second = (record("gptq", "clean", wer, fingerprint=str(wer)) for wer in (2.0, 3.0))
    second["settings"]["calib"]["n"] = 8
    third = record("gptq", "clean", 1.0, fingerprint="third", bits="w3a16")
    write(tmp_path, first, second, third, record("rtn", "clean", 4.0))
    (panel,) = panels(points(tmp_path))
    named = dict(zip(panel.points["fingerprint"], panel.points["series"], strict=True))
    n = first["settings"]["calib"]["n"]
    assert named == {
        "2.0": f"gptq calib.n={n}",
        "3.0": "gptq calib.n=8",
        "third": f"gptq calib.n={n}",
        "rtn-clean": "rtn",
    }


def test_series_look_different_and_references_come_first() -> None:
    found = marks([f"m{number}" for number in range(61)] + ["rtn", "fp"])
    assert list(found)[:2] == ["fp", "rtn"]
    assert len(set(found.values())) == 63


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.0, math.nan]), st.integers(0, 5)), max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, int]]) -> None:
    found = front([cost for cost, _ in points], [float(error) for _, error in points])
    best = {points[number] for number in found}
    for cost, error in points:
        if math.isnan(cost):
            continue
        dominated = any(c <= cost and e <= error and (c, e) != (cost, error) for c, e in points)
        assert ((cost, error) in best) is not dominated
