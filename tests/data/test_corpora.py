"""Loading a folder in the hub's layout: what is read, what is dropped, what identifies it, and every error."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from src.data.corpora import open_corpus
from src.data.selection import Selection
from src.data.sources import dataset_identity
from src.errors import UserError
from src.project import ROOT
from tests.data.clips import clip, tone, write
from tests.data.sets import dataset as settings
from tests.utterances import load_utterances

README = """---
license: cc-by-4.0
configs:
- config_name: own
  data_files:
  - split: test.clean
    path: data/clean-*
  - split: dev
    path: [data/dev-a.parquet, data/dev-b.parquet]
- config_name: plain
  data_files: data/dev-*.parquet
---
# A corpus
"""


def make(tmp_path: Path, rows: list[dict[str, object]]) -> Path:
    """A folder without a README."""
    write(tmp_path / "own" / "test-00000-of-00001.parquet", rows)
    return tmp_path


def test_utterances_carry_text_duration_and_sound(tmp_path: Path) -> None:
    rows = [clip("b", "Second.", tone(0.5, 440, 44_100, 2, "FLAC")), clip("a", "First!", tone(0.25, 440))]
    first, second = load_utterances(settings(make(tmp_path, rows)), seed=0)
    assert (first.id, first.text, first.samples, first.seconds) == ("a", "First!", 4_000, 0.25)
    assert (second.id, second.samples) == ("b", 8_000)
    assert len(second.waveform()) == 8_000


def make_with_readme(tmp_path: Path) -> None:
    """Two files of clip a and b, which are the split test.clean, and two of clips c and d."""
    (tmp_path / "README.md").write_text(README)
    for number, name in enumerate("ab"):
        write(tmp_path / "data" / f"clean-0000{number}-of-00002.parquet", [clip(name, f"text {name}")])
    write(tmp_path / "data" / "dev-a.parquet", [clip("c")])
    write(tmp_path / "data" / "dev-b.parquet", [clip("d")])


def test_the_readme_decides_where_configs_and_splits_lie(tmp_path: Path) -> None:
    make_with_readme(tmp_path)

    def ids(**changes: str) -> list[str]:
        return [utterance.id for utterance in load_utterances(settings(tmp_path, **changes), seed=0)]

    assert ids(split="test.clean") == ["a", "b"]
    assert ids(split="dev") == ["c", "d"]
    assert ids(config="plain", split="train") == ["c", "d"]


def test_the_datasets_library_reads_the_same_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    make_with_readme(tmp_path)
    table = datasets.load_dataset(str(tmp_path), "own", split="test.clean", cache_dir=str(tmp_path / "cache"))
    ours = load_utterances(settings(tmp_path, split="test.clean"), seed=0)
    assert [(row["id"], row["text"], row["audio"]["bytes"]) for row in table] == [
        (u.id, u.text, u.encoded()) for u in ours
    ]


def test_source_may_be_a_folder_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "corpus", [clip("a")])
    monkeypatch.chdir(tmp_path)
    assert len(load_utterances(settings(None, source="corpus"), seed=0)) == 1


def test_limit_draws_by_seed_and_reads_the_right_audio(tmp_path: Path) -> None:
    rows = [clip(f"{number:02d}", audio=tone(0.01 * (number + 1), 440)) for number in range(30)]
    folder = make(tmp_path, rows)

    def ids(limit: int, seed: int) -> list[str]:
        drawn = load_utterances(settings(folder, limit=limit), seed)
        assert all(len(utterance.waveform()) == utterance.samples for utterance in drawn)
        assert all(utterance.samples == 160 * (int(utterance.id) + 1) for utterance in drawn)
        return [utterance.id for utterance in drawn]

    assert len(ids(7, 0)) == 7
    assert ids(7, 0) == ids(7, 0)
    assert ids(7, 0) != ids(7, 1)
    assert ids(7, 0) != [f"{number:02d}" for number in range(7)]


def test_a_limit_beyond_the_set_uses_all_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert len(load_utterances(settings(make(tmp_path, [clip("a")]), limit=5), seed=0)) == 1
    assert "own: 5 clips are asked for, but it has 1: all are used" in caplog.text


def test_references_with_nothing_to_score_are_dropped_and_told(tmp_path: Path) -> None:
    texts = ["kept", "", "  ", "?!", "ignore_time_segment_in_scoring", "Ignore time segment in scoring", "(um)"]
    folder = make(tmp_path, [clip(str(number), text) for number, text in enumerate(texts)])
    corpus = open_corpus(Selection(settings(folder), None, 0), None, "fail")
    assert [utterance.text for utterance in corpus.utterances()] == ["kept"]
    assert corpus.report["dropped_references"] == {"count": 6, "ids": ["1", "2", "3", "4", "5", "6"]}
    assert corpus.report["utterances"] == 1
    assert not corpus.report["subset"]


def test_repeated_ids_are_told_apart(tmp_path: Path) -> None:
    folder = make(tmp_path, [clip("a", "one"), clip("a", "two"), clip("b", "three")])
    assert [utterance.id for utterance in load_utterances(settings(folder), seed=0)] == ["a", "a#2", "b"]


def test_identity_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    here, there = (make(tmp_path / name, [clip("a", "words")]) for name in ("here", "there"))
    identity = dataset_identity(settings(here))
    assert identity == dataset_identity(settings(there, name="other", limit=3))
    assert identity["config"] == "own"
    assert identity["split"] == "test"
    file = there / "own" / "test-00000-of-00001.parquet"
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    assert dataset_identity(settings(there))["sha256"] != identity["sha256"]


def test_identity_of_a_hub_set_needs_no_network() -> None:
    pinned = dataset_identity(settings(None, source="some/set", revision="abc"))
    assert pinned == {"source": "some/set", "revision": "abc", "config": "own", "split": "test"}


def test_importing_the_loader_does_not_import_datasets() -> None:
    code = "import sys, src.data.corpora; assert not {'datasets', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"root": "absent/folder"}, "dataset.root", "'absent/folder'"),
        ({"root": None, "source": "./absent"}, "dataset.source", "'./absent'"),
        ({"root": None, "source": "src/sandbox/absent"}, "dataset.source", "'src/sandbox/absent'"),
        ({"config": "onw"}, "dataset.config", "Did you mean 'own'? Available: own"),
        ({"split": "tset"}, "dataset.split", "Did you mean 'test'? Available: test"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    tmp_path: Path, changes: dict[str, object], field: str, expected: str
) -> None:
    folder = make(tmp_path, [clip("a")])
    for function in (dataset_identity, lambda chosen: load_utterances(chosen, seed=0)):
        with pytest.raises(UserError) as caught:
            function(settings(folder, **changes))
        assert caught.value.field == field
        assert expected in str(caught.value)


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match="has neither a README with `configs` nor files"):
        dataset_identity(settings(tmp_path))


def test_files_the_readme_lists_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    with pytest.raises(UserError, match=r"no file matches data/clean-\*"):
        load_utterances(settings(tmp_path, split="test.clean"), seed=0)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("- name: own", r"README\.md is not the hub's `configs` form"),
        ("- {config_name: own, data_files: [{split: test, path: 7}]}", r"form \(7 is no pattern"),
        (
            "- {config_name: own, data_files: [{split: test, path: /etc/*}]}",
            "lists /etc/., which is no pattern of files",
        ),
    ],
)
def test_a_broken_readme_header_is_named(tmp_path: Path, configs: str, message: str) -> None:
    folder = make(tmp_path, [clip("a")])
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    with pytest.raises(UserError, match=message):
        load_utterances(settings(folder), seed=0)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    rows = [{"id": "a", "sentence": "words"}]
    write(tmp_path / "own" / "test-0.parquet", rows)
    with pytest.raises(UserError, match=r"no column text, audio \(found: id, sentence\)"):
        load_utterances(settings(tmp_path), seed=0)


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path, [clip("a")])
    (folder / "own" / "test-00000-of-00001.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is not a readable parquet file"):
        load_utterances(settings(folder), seed=0)


def test_a_file_damaged_behind_its_footer_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path, [clip(str(number)) for number in range(8)])
    file = folder / "own" / "test-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is not a readable parquet file"):
        load_utterances(settings(folder), seed=0)


def test_a_set_without_any_reference_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 2 references of own has words"):
        load_utterances(settings(make(tmp_path, [clip("a", ""), clip("b", "?!")])), seed=0)
