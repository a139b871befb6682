"""The table at the end: best first, complete where it is kept in a file, folded where a terminal is narrow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from src.machine.provenance import combined
from src.records import Record
from src.terminal import console
from tests.reporting import recorded

MODEL, BITS, DATASET = "whisper_large_v3_turbo", "w4a8kv4g128", "sandbox_calibration"


def record(
    name: str, wer: float | None = None, significant: bool = False, metric: str = "WER", **fields: Any
) -> Record:
    """A record with what the table shows; the paired difference to fp is +0.5."""
    results: dict[str, Any] = {"quantize": {"disk_bytes": 3_858_624, "layers": []}}
    if wer is not None:
        evaluate = recorded.record("rtn", "clean", wer)["results"]["evaluate"]
        difference = {"difference": 0.5, "low": 0.0, "high": 1.0, "p_value": 0.04, "significant": significant}
        results["evaluate"] = {**evaluate, "metric": metric, "versus_fp": difference}
        results["profile"] = {"memory_io_bytes": 40_440_000, "bops": 122_254_934_016}
    shown = {"model": "m", "method": name, "bits": BITS, "dataset": "d", "results": results, "settings": {}, **fields}
    return Record.of(recorded.record("rtn", "clean", 1.0) | shown)


def shown(capsys: pytest.CaptureFixture[str], *records: Record) -> list[list[str]]:
    console.show(records)
    lines = [line for line in capsys.readouterr().out.splitlines() if line != console.LEGEND]
    return [line.split() for line in lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes the output look like a terminal; its width is $COLUMNS."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


def test_rows_are_sorted_best_first_and_points_without_a_score_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    rows = shown(capsys, record("none"), record("worse", 100.0), record("best", 9.9), record("second", 10.0))
    assert [row[1] for row in rows[2:]] == ["best", "second", "worse", "none"]


def test_a_row_holds_the_figures_in_the_units_of_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    heading, _, row = shown(capsys, record("gptq", 12.345))
    assert " ".join(heading) == "model method bits dataset WER 95% CI vs fp MB I/O MB GBOP"
    assert row == ["m", "gptq", "w4a8kv4g128", "d", "12.35", "11.35-13.35", "+0.50", "3.86", "40.4", "122"]


def test_error_rates_over_characters_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Alone in the heading; beside WERs in the cell, below them all whatever their size."""
    words, characters = record("en", 20.0), record("ja", 5.0, metric="CER")
    heading, _, row = shown(capsys, characters)
    assert (heading[4], row[4]) == ("CER", "5.00")
    heading, _, first, second = shown(capsys, characters, words)
    assert heading[4:6] == ["WER,", "CER"]
    assert (first[1], first[4:6]) == ("en", ["20.00", "19.00-21.00"])
    assert (second[1], second[4:6]) == ("ja", ["5.00", "CER"])


def test_another_dtype_than_float32_stands_beside_the_bits(capsys: pytest.CaptureFixture[str]) -> None:
    plain, half = record("a", 1.0, dtype="float32"), record("b", 2.0, dtype="bfloat16")
    *_, first, second = shown(capsys, plain, half)
    assert first[2:4] == [BITS, "d"]
    assert second[2:5] == [BITS, "bfloat16", "d"]


def test_another_runtime_than_torch_stands_beside_the_bits_and_its_bytes_get_a_column(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, onnx = record("a", 1.0), record("b", 2.0, runtime="onnx codes, level 4")
    results = {**onnx.plain["results"], "evaluate": {**onnx.plain["results"]["evaluate"], "exported_bytes": 31_000_000}}
    heading, _, first, second = shown(capsys, plain, Record.of(onnx.plain | {"results": results}))
    assert " ".join(heading) == "model method bits dataset WER 95% CI vs fp export MB MB I/O MB GBOP"
    assert (first[2:4], first[7]) == ([BITS, "d"], "-")
    assert (" ".join(second[2:8]), second[11]) == (f"{BITS} onnx codes, level 4 d", "31.00")


def test_a_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    *_, row = shown(capsys, record("gptq", dataset="a[bold]:b:[/x]"))
    assert row[3] == "a[bold]:b:[/x]"


def test_what_was_not_computed_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    *_, row = shown(capsys, record("gptq"))
    assert row[4:] == ["-", "-", "-", "3.86", "-", "-"]
    *_, row = shown(capsys, record("gptq", results={}))
    assert row[4:] == ["-"] * 6


@pytest.mark.parametrize(("significant", "star"), [(False, ""), (True, "*")])
def test_a_star_marks_a_significant_difference_and_the_legend_says_what_none_means(
    capsys: pytest.CaptureFixture[str], significant: bool, star: str
) -> None:
    console.show([record("gptq", 12.0, significant)])
    *_, row, legend = capsys.readouterr().out.splitlines()
    assert row.split()[6] == f"+0.50{star}"
    assert legend.startswith("* significant")
    assert legend.endswith("No star: not significant.")


def test_without_a_score_there_is_nothing_to_explain(capsys: pytest.CaptureFixture[str]) -> None:
    console.show([record("gptq")])
    assert "significant" not in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_nothing_is_cut_or_folded_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    rows = shown(capsys, record("gptq", 123.45, model=MODEL, dataset=DATASET))
    assert rows[2][:4] == [MODEL, "gptq", "w4a8kv4g128", DATASET]
    assert len(rows) == 3


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_the_table_fits_a_terminal_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], terminal: pytest.MonkeyPatch, columns: int
) -> None:
    terminal.setenv("COLUMNS", str(columns))
    console.show([record("rtn_mse", 123.45, True, model=MODEL, dataset=DATASET)])
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = out.splitlines()
    rule = next(at for at, line in enumerate(lines) if line.startswith("─"))
    assert max(map(len, lines)) <= columns
    assert "…" not in out
    legend = next(at for at, line in enumerate(lines) if line.startswith("* "))
    first, *further = [line.split() for line in lines[rule + 1 : legend]]
    assert first[4:] == ["123.45", "122.45-124.45", "+0.50*", "3.86", "40.4", "122"]
    names = "".join(first[:4] + [part for line in further for part in line])
    assert sorted(names) == sorted(f"{MODEL}rtn_mse{BITS}{DATASET}")


def test_an_error_is_one_line_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    message = f"model.source: [bold]{'long ' * 40}name[/bold]. Use :smile: C:\\path."
    console.error(message)
    captured = capsys.readouterr()
    assert captured.err == f"Error: {message}\n"
    assert captured.out == ""


def test_that_points_were_not_made_in_one_place_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def made(source: str, *processors: str) -> Record:
        places = [{"source": source, "commit": source * 40, "processor": each, "threads": 1} for each in processors]
        return record("rtn", 1.0, provenance=combined({"quantize": places[:1], "evaluate": places}))

    told = "Not all of this was made in one place: "
    for points, differ in (
        ([made("a", "A"), made("a", "A")], None),
        ([made("a", "A"), made("b", "A")], "source"),
        ([made("a", "A", "B")], "processor"),
    ):
        console.show(points)
        out = " ".join(capsys.readouterr().out.split())
        assert (told in out) is (differ is not None)
        assert differ is None or f"{told}{differ} differ" in out


def test_points_of_the_same_names_are_told_apart_by_what_was_set(capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(wer: float, n: int, source: str) -> dict[str, Any]:
        calib = {"n": n, "dataset": {"name": source, "config": source}}
        return record("gptq", wer, settings={"calib": calib, "output_dir": str(n), "seed": 0})

    other = record("rtn", 9.0, settings={"calib": {"n": 99}, "seed": 1})
    heading, _, first, second, last = shown(capsys, drawn(2.0, 8, "a"), drawn(1.0, 16, "b"), other)
    assert heading[3:7] == ["dataset", "calib.dataset.name", "calib.n", "WER"]
    assert [row[3:7] for row in (first, second)] == [["d", "b", "16", "1.00"], ["d", "a", "8", "2.00"]]
    assert last[3:6] == ["d", "-", "99"]
    assert shown(capsys, drawn(2.0, 8, "a"), other)[0][3:5] == ["dataset", "WER"]
