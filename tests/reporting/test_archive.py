"""Records as one file to publish: what was packed is read as the folder was."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from src.data.transcripts import Transcript, save_transcripts
from src.errors import UserError
from src.reporting.archive import opened, pack
from src.reporting.collect import choose, collect
from src.reporting.reading import read_records
from src.reporting.significance import PairedTests
from src.reporting.tables import Layout, render
from src.scoring.wer import SCORER
from src.storage.store import Store
from src.text.normalizers import Rules
from tests import commands
from tests.reporting.recorded import record, write

WORDS = ["the", "cat", "sat", "on", "the", "mat", "and", "saw", "a", "dog"]
SYSTEMS = {"gptq": 0.05, "quarot": 0.06, "rtn": 0.6}  # share of words that are wrong


def _stored(outputs: Path, method: str, dataset: str, wrong: float) -> str:
    """Transcripts of 40 utterances with that share of errors; the entry's name."""
    entry = Store(outputs / "cache").entry("transcripts", {"dataset": {"name": dataset}, "of": method})
    flips = np.random.default_rng(list(method.encode())).uniform(size=(40, len(WORDS)))
    items = [
        Transcript(
            f"{dataset}-{n}",
            " ".join(WORDS),
            " ".join(word if flip > wrong else "oops" for word, flip in zip(WORDS, row, strict=True)),
            **{"seconds": 2.0, "tokens": 10, "capped": False, "speaker": None},
        )
        for n, row in enumerate(flips)
    ]
    entry.obtain(lambda folder: save_transcripts(items, folder / "transcripts.jsonl"))
    return entry.fingerprint


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three methods on two test sets, and their means."""
    folder = tmp_path / "outputs"
    for method, wrong in SYSTEMS.items():
        versions = {"model": {}, "normalizer": Rules.named("whisper-english/0.1").name, "scorer": SCORER}
        members = [
            record(method, dataset, 100 * wrong, transcripts=_stored(folder, method, dataset, wrong), versions=versions)
            for dataset in ("clean", "other")
        ]
        mean = record(method, "clean", 100 * wrong, fingerprint=f"{method}-mean", members=members, transcripts=None)
        write(folder, *members, {**mean, "dataset": "both"})
    return folder


def packed(outputs: Path, archive: Path, *filters: str) -> int:
    """Number of records in the archive once the chosen ones are added."""
    records, _ = read_records(outputs)
    return pack(outputs, records, set(choose(collect(records), filters, {})["fingerprint"]), archive)


def tables(outputs: Path, *, columns: str = "bits", means: bool = False, best: bool = False) -> str:
    with opened(outputs) as folder:
        points = collect(read_records(folder)[0], means=means)
        return render(points, Layout("method", columns), "markdown", PairedTests(folder) if best else None)


def cells(text: str) -> dict[str, str]:
    """Rows of a table by their first cell."""
    return {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}


def test_what_was_packed_is_reported_and_compared_as_the_folder_is(outputs: Path, tmp_path: Path) -> None:
    archive = tmp_path / "records.tar.xz"
    told = commands.run("src.report", outputs, "--means", "--pack", archive)
    assert "holds 9 records" in told.stderr
    assert tables(archive, columns="dataset") == tables(outputs, columns="dataset")
    assert tables(archive, means=True, best=True) == tables(outputs, means=True, best=True)
    compared = commands.run("src.compare", "gptq-clean", "rtn-clean", "--output-dir", archive)
    assert "40 utterances" in compared.stdout, compared.stderr
    page = commands.run("src.report", archive, "--to", tmp_path / "page", "--plots", "0")
    assert "Edge ASR: records" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8"), page.stderr


def test_packing_adds_and_is_the_same_byte_for_byte(outputs: Path, tmp_path: Path) -> None:
    whole, grown = tmp_path / "whole.tar.xz", tmp_path / "grown.tar.xz"
    assert packed(outputs, whole) == 9  # all members of the means are there, so that the means are, too
    assert [packed(outputs, grown, f"method={method}") for method in SYSTEMS] == [3, 6, 9]
    assert grown.read_bytes() == whole.read_bytes()


def test_what_is_not_told_from_the_best_is_marked(outputs: Path) -> None:
    row = cells(tables(outputs, means=True, best=True))
    assert [name for name, line in row.items() if "**" in line] == ["gptq"]
    assert [name for name, line in row.items() if "≈" in line] == ["quarot"]
    assert r"\*" in row["rtn"]


def test_a_star_that_one_test_earns_is_lost_among_twelve(tmp_path: Path) -> None:
    for n in range(12):
        name, wer = f"method{n}", 12.0 if n == 0 else 10.0
        stored = _stored(tmp_path, name, "clean", 0.1)
        point = record("rtn", "clean", wer, fingerprint=name, transcripts=stored)
        write(tmp_path, {**point, "method": name})
    assert r"12.00\*" in tables(tmp_path)
    assert r"12.00\*" not in tables(tmp_path, best=True)


@pytest.mark.parametrize("name", ["absent", "cut", "outside"])
def test_what_is_no_archive_is_told(outputs: Path, tmp_path: Path, name: str) -> None:
    packed(outputs, tmp_path / "whole.tar.xz")
    (tmp_path / "cut.tar.xz").write_bytes((tmp_path / "whole.tar.xz").read_bytes()[:-1000])
    with tarfile.open(tmp_path / "outside.tar.xz", "w:xz") as tar:
        member = tarfile.TarInfo("../planted")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UserError, match="no whole archive of records"):
        tables(tmp_path / f"{name}.tar.xz")
    assert not list(tmp_path.rglob("planted"))


def test_transcripts_that_are_gone_are_named(outputs: Path) -> None:
    next((outputs / "cache" / "transcripts").glob("*/transcripts.jsonl")).unlink()
    with pytest.raises(UserError, match=r"transcripts\.jsonl is missing"):
        tables(outputs, columns="dataset", best=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--best", "--metric", "disk_bytes", "--format", "markdown"], "--best: it tells of the WER"),
        (["--pack", "records.zip"], "does not end in .tar.xz"),
    ],
)
def test_mistakes_are_one_sentence(outputs: Path, arguments: list[str], sentence: str) -> None:
    run = commands.run("src.report", outputs, *arguments)
    assert run.returncode == 1
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr
