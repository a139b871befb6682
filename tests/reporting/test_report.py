from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from src.errors import UserError
from src.machine.provenance import combined
from src.records import Record
from src.reporting.collect import choose, composites
from src.reporting.drawing import draw
from src.reporting.folder import Limits, write_report
from src.reporting.marks import marks
from src.reporting.panels import panels
from src.reporting.reading import damaged_entries, read_records
from src.reporting.tables import Format, Layout, render
from src.storage.checksum import with_checksum
from src.storage.store import Store, write_json
from tests import commands
from tests.reporting.recorded import points, record, write, write_failure

KINDS = ("wer-bits", "pareto", "failures")
WERS = {("rtn", "clean"): 12.0, ("rtn", "other"): 20.0, ("gptq", "clean"): 10.0, ("gptq", "other"): 30.0}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return write(tmp_path, *(record(method, dataset, wer) for (method, dataset), wer in WERS.items()))


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return commands.run("src.report", *arguments)


def markdown(outputs: Path, rows: str = "method", columns: str = "dataset", *filters: str) -> list[list[str]]:
    """Cells of the table, header first."""
    text = render(choose(points(outputs), filters, {}), Layout(rows, columns), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for number, line in enumerate(lines) if number != 1]


def test_test_sets_side_by_side_end_in_their_unweighted_mean_and_the_best_is_bold(outputs: Path) -> None:
    assert markdown(outputs) == [
        ["method", "clean", "other", "mean"],
        ["rtn", r"12.00\* (11.0-13.0)", r"**20.00\* (19.0-21.0)**", "**16.00**"],
        ["gptq", "**10.00 (9.0-11.0)**", r"30.00\* (29.0-31.0)", "20.00"],
    ]


def test_the_name_of_a_mean_stands_for_its_test_sets(outputs: Path) -> None:
    members = [record("rtn", dataset, WERS["rtn", dataset]) for dataset in ("clean", "other")]
    mean = {**record("rtn", "clean", 16.0, fingerprint="mean", members=members), "dataset": "both"}
    write(outputs, mean, {**record("rtn", "clean", 5.0, fingerprint="third"), "dataset": "third"})
    records, _ = read_records(outputs)
    chosen = choose(points(outputs), ["dataset=bo*"], composites(records))
    assert set(chosen["dataset"]) == {"clean", "other"}
    told = report(outputs, "dataset=both", "--columns", "dataset", "--format", "markdown")
    assert "| mean" in told.stdout
    assert "third" not in told.stdout


def test_a_mean_over_fewer_sets_than_the_others_is_not_shown(outputs: Path) -> None:
    (outputs / "records" / "gptq-other.json").unlink()
    assert markdown(outputs)[2] == ["gptq", "**10.00 (9.0-11.0)**", "-", "-"]


def test_bit_configs_go_from_many_bits_to_few_and_weight_only_ones_come_first(tmp_path: Path) -> None:
    names = ("w4a8", "w2a16", "w8a8", "w3a16", "w4a16")
    write(tmp_path, *(record("rtn", "clean", 10.0, fingerprint=name, bits=name) for name in names))
    assert markdown(tmp_path, "method", "bits")[0] == ["method", "w4a16", "w3a16", "w2a16", "w8a8", "w4a8"]


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_scores_of_different_normalizers_are_refused_until_one_is_chosen(tmp_path: Path, form: Format) -> None:
    other = record("gptq", "clean", 3.0)
    other["versions"] = {**other["versions"], "normalizer": "whisper-english/0.2"}
    write(tmp_path, record("rtn", "clean", 2.0), other)
    with pytest.raises(UserError, match=r"whisper-english/0.1, whisper-english/0.2.*Add normalizer="):
        render(points(tmp_path), Layout("method", "bits"), form)
    chosen = choose(points(tmp_path), ["normalizer=*/0.2"], {})
    assert "gptq" in render(chosen, Layout("method", "bits"), form)


def test_two_points_for_one_cell_are_told_apart_by_the_setting_that_differs(tmp_path: Path) -> None:
    first, second = (record("gptq", "clean", wer, fingerprint=str(wer)) for wer in (2.0, 3.0))
    second["settings"]["calib"]["n"] = 8
    write(tmp_path, first, second)
    with pytest.raises(UserError, match=r"2 records are gptq w4a16; they differ in calib\.n"):
        render(points(tmp_path), Layout("method", "bits"), "markdown")
    assert markdown(tmp_path, "method", "bits", "calib.n=8")[1] == ["gptq", r"**3.00\* (2.0-4.0)**"]


def test_points_that_differ_in_the_seed_alone_are_a_mean_and_its_spread(tmp_path: Path) -> None:
    drawn = [record("gptq", "clean", wer, fingerprint=str(wer)) for wer in (12.0, 13.0, 17.0)]
    for seed, each in enumerate(drawn):
        each["settings"] |= {"seed": seed, "calib": {**each["settings"]["calib"], "seed": seed}}
    write(tmp_path, *drawn, record("rtn", "clean", 12.0))
    assert markdown(tmp_path, "method", "bits")[1:] == [
        ["rtn", r"**12.00\* (11.0-13.0)**"],
        ["gptq", r"14.00\* ± 2.65"],
    ]
    table = render(points(tmp_path), Layout("method", "bits"), "latex")
    assert r"mean $\pm$ standard deviation over 3 seeds" in table
    drawn[1]["settings"]["tracking"]["mode"], drawn[1]["settings"]["profile"]["max_load"] = "none", 9.0
    write(tmp_path, *drawn)
    assert r"14.00\* ± 2.65" in render(points(tmp_path), Layout("method", "bits"), "markdown")
    drawn[1]["settings"]["calib"]["n"] = 8
    write(tmp_path, *drawn)
    with pytest.raises(UserError, match=r"differ in calib\.n\. Choose one, e\.g\. calib\.n=64\.$"):
        render(points(tmp_path), Layout("method", "bits"), "markdown")


def made_by(point: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The record, with its score made by code ``a`` and torch 2, on one machine, but for the changes."""
    here = {
        "commit": "c" * 40,
        "dirty": False,
        "source": "a",
        "packages": {"torch": "2"},
        "processor": "P",
        "threads": 1,
    }
    made = {**here, "device": "cpu"}
    return {**point, "provenance": combined({"quantize": [made], "evaluate": [made, {**made, **changes}]})}


@pytest.mark.parametrize(
    ("changes", "kept_apart"),
    [
        ({"source": "b"}, "code"),
        ({"packages": {"torch": "3"}}, "packages.torch"),
        ({"commit": "d" * 40}, None),  # which changed no code
        ({"processor": "Q"}, None),
    ],
)
def test_scores_by_other_code_or_packages_are_not_averaged(
    tmp_path: Path, changes: dict[str, Any], kept_apart: str | None
) -> None:
    made = [made_by(record("gptq", "clean", 12.0, fingerprint="0")), record("gptq", "clean", 14.0, fingerprint="1")]
    made[1] = made_by(made[1], **changes)
    made[1]["settings"] |= {"seed": 1}
    write(tmp_path, *made)
    layout = Layout("method", "bits")
    text = render(points(tmp_path), layout, "markdown")
    assert ("12.00 / 14.00†" in text) is (kept_apart is not None)
    assert (r"13.00\* ± 1.41" in text) is (kept_apart is None)
    if kept_apart is not None:
        assert f"† not averaged: of different {kept_apart}" in text
    notes = write_report(tmp_path, tmp_path / "report", points(tmp_path), [], layout, Limits(0, 0, 0)).notes
    told = {"code": "versions of the code: a; b", "packages.torch": "versions of torch: 2; 3"}
    other = "machines: P, 1 threads; Q, 1 threads" if "processor" in changes else "nothing"
    assert any(told.get(str(kept_apart), other) in note for note in notes) is (other != "nothing" or bool(kept_apart))


def test_a_mean_over_test_sets_is_not_taken_over_scores_by_other_code(tmp_path: Path) -> None:
    made = [record(method, dataset, wer) for (method, dataset), wer in WERS.items()]
    write(
        tmp_path,
        *(made_by(each, source=each["method"] + each["dataset"][: each["method"] == "rtn"]) for each in made),
    )
    assert [row[-1] for row in markdown(tmp_path)] == ["mean", "†", "**20.00**"]


def test_csv_has_every_point_with_figures_and_settings(outputs: Path) -> None:
    done = report(outputs, "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {(row["method"], row["dataset"]): float(row["wer"]) for row in rows} == WERS
    assert {row["calib.n"] for row in rows} == {"64"}


def test_a_mean_is_not_taken_over_scores_of_different_utterances(tmp_path: Path) -> None:
    other = record("gptq", "clean", 3.0)
    other["results"]["evaluate"]["utterances"] = 8
    write(tmp_path, record("rtn", "clean", 2.0), other)
    with pytest.raises(UserError, match=r"data: the records of clean are of different data .*Add data=8_utterances"):
        render(points(tmp_path), Layout("method", "dataset"), "markdown")


def test_everything_is_written_into_a_folder_and_the_next_report_replaces_it(outputs: Path) -> None:
    write_failure(outputs, "f1")
    done = report(outputs)
    folder = outputs / "report"
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / "table.md").read_text(encoding="utf-8")
    assert "### sandbox_moonshine, clean (fp 9.00)" in done.stdout
    assert f"{folder / 'index.html'} (" in done.stderr
    assert "1 point failed" in done.stderr
    names = {path.name for path in folder.iterdir()}
    pairs = ("sandbox_moonshine-clean", "sandbox_moonshine-other")
    plots = {f"{kind}-{pair}.{form}" for kind in KINDS for pair in pairs for form in ("png", "svg")}
    layers = {f"layers-weight-error-sandbox_moonshine.{form}" for form in ("png", "svg")}
    assert names == plots | layers | {"index.html", "table.md", "table.tex", "points.csv", "files.json"}
    front = (folder / "pareto-sandbox_moonshine-clean.svg").read_text(encoding="utf-8")
    assert ">gptq w4a16<" in front  # the only point on the front, named in it
    assert ">rtn w4a16<" not in front
    pictures = [path.read_bytes()[:8] for path in folder.glob("*.png")]
    assert set(pictures) == {b"\x89PNG\r\n\x1a\n"}
    (folder / "mine.txt").touch()
    assert report(outputs, "dataset=clean", "--plots", "0").returncode == 0
    left = {path.name for path in folder.iterdir()}
    assert left == {"index.html", "table.md", "table.tex", "points.csv", "files.json", "mine.txt"}


def test_a_sweep_in_which_every_point_failed_has_a_page(tmp_path: Path) -> None:
    write_failure(tmp_path, "f1")
    done = report(tmp_path, "--to", tmp_path / "page")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "no such thing" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_latex_names_are_escaped(outputs: Path) -> None:
    done = report(outputs, "--columns", "dataset", "method=rtn", "--format", "latex")
    assert r"\caption{sandbox\_moonshine, w4a16 (fp 9.00)}" in done.stdout
    assert r"\textbf{20.00$^*$ (19.0-21.0)}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["method=gptqq"], "method matches no record with 'gptqq'. There are gptq, rtn."),
        (["metod=gptq"], "records have no 'metod'. Did you mean 'method'?"),
        (["gptq"], "'gptq' is not column=value"),
        (["--rows", "methods"], "rows: 'methods' cannot be laid out. Did you mean 'method'?"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_1(outputs: Path, arguments: list[str], sentence: str) -> None:
    done = report(outputs, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    assert "holds no records" in report(tmp_path).stderr


def damaged(folder: Path) -> dict[str, str]:
    """Files that are no records beside those of ``folder``; what is said of each."""
    good, records = record("gptq", "clean", 9.0), folder / "records"
    scored = good["results"]["evaluate"]
    texts: dict[str, Any] = {
        "truncated": json.dumps(good)[:200],
        "empty": "",
        "list": [good],
        "number": 7,
        "binary": b"\xff\xfe\x00",
        "nested": "[" * 100_000,
        "text-wer": {**good, "results": {"evaluate": {**scored, "wer": "low"}}},
        "nan-wer": {**good, "results": {"evaluate": {**scored, "wer": float("nan")}}},
        "no-versions": {name: value for name, value in good.items() if name != "versions"},
        "text-results": {**good, "results": "all good"},
        "name-is-a-list": {**good, "method": ["gptq"]},
        "no-layer-name": {**good, "results": {"quantize": {"layers": [{"error": 1}]}}},
        "edited": with_checksum({**good, "fingerprint": "edited"}) | {"method": "awq"},
        "copied": good,
    }
    for name, content in texts.items():
        own = content | {"fingerprint": name} if isinstance(content, dict) and name != "copied" else content
        encoded = own if isinstance(own, bytes) else (own if isinstance(own, str) else json.dumps(own)).encode()
        (records / f"{name}.json").write_bytes(encoded)
    (records / "folder.json").mkdir()
    (records / "gone.json").symlink_to(records / "nothing")
    return dict.fromkeys((*texts, "folder", "gone"), "")


def test_damaged_records_are_listed_and_the_others_shown(outputs: Path) -> None:
    names = damaged(outputs)
    found, [note] = read_records(outputs)
    assert {each.fingerprint for each in found} == {f"{method}-{dataset}" for method, dataset in WERS}
    assert f"{len(names)} records" in note
    assert "and 11 more" in note
    done = report(outputs, "--plots", "0")
    assert done.returncode == 0, done.stderr
    assert "**10.00" in done.stdout
    assert note in done.stderr
    assert f"{len(names)} records" in (outputs / "report" / "index.html").read_text(encoding="utf-8")
    for path in (outputs / "records").glob("*-*.json"):
        if path.stem in {"-".join(names) for names in WERS}:
            path.unlink()
    nothing = report(outputs)
    assert nothing.returncode == 1
    assert "none of the 16 records" in nothing.stderr
    assert "Traceback" not in nothing.stderr


ODD_NAMES = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "a$b", "100% & #1_{x}~^\\", "a|b*c_")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_a_name_in_every_format(tmp_path: Path, name: str) -> None:
    write(tmp_path, record("rtn", "clean", 12.0) | {"dataset": name, "model": "m"})
    found = points(tmp_path)
    [row] = csv.DictReader(io.StringIO(render(found, Layout("method", "bits"), "csv")))
    assert row["dataset"] in (name, f"'{name}")
    assert not row["dataset"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert float(row["diff"]) == 3.0  # numbers stay numbers
    [line] = [line for line in render(found, Layout("dataset", "bits"), "latex").splitlines() if "12.00" in line]
    line = line.replace("$^*$", "").replace("\\\\", "")
    assert len(re.findall(r"(?<!\\)[&%$#_^~]", re.sub(r"\\text\w+\{\}", "", line))) == 1  # what parts the two cells
    [line] = [line for line in render(found, Layout("dataset", "bits"), "markdown").splitlines() if "12.00" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3


def test_plots_of_names_with_odd_signs_show_them(tmp_path: Path) -> None:
    name = {"dataset": "a$b$^{x_"}
    write(tmp_path, record("rtn", "clean", 12.0) | name | {"method": "r$tn"}, record("fp", "clean", 2.0) | name)
    folder = tmp_path / "plots"
    shown = panels(points(tmp_path))
    written = draw(tmp_path, folder, shown, marks(name for panel in shown for name in panel.points["series"]), 4)
    [pareto] = [path for path in written if path.name.startswith("pareto") and path.suffix == ".svg"]
    assert "a$b$^{x_" in pareto.read_text(encoding="utf-8")
    assert {path.parent for path in written} == {folder}


def test_damaged_results_behind_a_record_are_told_and_those_cleared_away_are_not(
    tmp_path: Path,
) -> None:
    stored = {
        name: Store(tmp_path / "cache").entry(name, {"of": name}) for name in ("calibrate", "quantize", "profile")
    }
    for entry in stored.values():
        entry.obtain(lambda folder: write_json(folder / "result.json", {"bytes": 1}))
    other = Store(tmp_path / "cache").entry("quantize", {"of": "no record"})
    other.obtain(lambda folder: write_json(folder / "result.json", {}))
    entries = {name: entry.fingerprint for name, entry in stored.items()}
    records = [Record.of(record("rtn", "clean", 12.0, entries=entries))]
    assert damaged_entries(tmp_path, records) == []
    for entry in (stored["quantize"], other):
        (entry.path / "result.json").write_text("{}")
    shutil.rmtree(stored["profile"].path)
    [note] = damaged_entries(tmp_path, records)
    assert f"quantize/{stored['quantize'].fingerprint} (checksum of result.json differs)" in note
    assert other.fingerprint not in note
    assert "profile" not in note
