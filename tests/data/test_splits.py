"""The split that was asked for and nothing else, in every layout; another is refused with those that are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data.selection import Selection
from src.data.splits import split_name, tells_split
from src.errors import UserError
from tests.data.clips import clip, tone
from tests.data.sets import dataset, local
from tests.utterances import load_utterances

SPLITS = {"train": ["a", "b", "c"], "test": ["d", "e"], "test-other": ["f"]}


def table(names: list[str], **columns: str) -> pa.Table:
    return pa.Table.from_pylist([{**clip(name, f"text {name}"), **columns} for name in names])


def entries(folder: Path, names: list[str], **columns: str) -> list[dict[str, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.wav").write_bytes(tone(0.05, 440))
    return [{"audio": f"{name}.wav", "text": f"text {name}", "id": name, **columns} for name in names]


def lines(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("\n".join(map(json.dumps, rows)))


def beside(folder: Path) -> None:
    for split, names in SPLITS.items():
        pq.write_table(table(names), folder / f"{split}-00000-of-00001.parquet")


def under_data(folder: Path) -> None:
    (folder / "data").mkdir()
    beside(folder / "data")


def converted(folder: Path) -> None:
    for split, names in SPLITS.items():
        (folder / "default" / split).mkdir(parents=True)
        pq.write_table(table(names), folder / "default" / split / "0000.parquet")


def named_after_the_corpus(folder: Path) -> None:
    for split, names in SPLITS.items():
        pq.write_table(table(names), folder / f"my_corpus_{split}.parquet")


def folders_of_parts(folder: Path) -> None:
    for split, names in SPLITS.items():
        (folder / split).mkdir()
        for number, name in enumerate(names):
            pq.write_table(table([name]), folder / split / f"part-{number:05d}.parquet")


def lists(folder: Path) -> None:
    names = {"train": "train.jsonl", "test": "test_manifest.jsonl", "test-other": "test-other.jsonl"}
    for split, clips in SPLITS.items():
        lines(folder / names[split], entries(folder, clips))


def folders(folder: Path) -> None:
    for split, names in SPLITS.items():
        rows = entries(folder / split, names)
        lines(folder / split / "metadata.jsonl", rows)


def column_of_list(folder: Path) -> None:
    lines(
        folder / "manifest.jsonl",
        [row for split, names in SPLITS.items() for row in entries(folder, names, split=split)],
    )


def column_of_table(folder: Path) -> None:
    pq.write_table(
        pa.concat_tables(table(names, split=split) for split, names in SPLITS.items()), folder / "all.parquet"
    )


def saved(folder: Path) -> None:
    parts = {split: datasets.Dataset(table(names)) for split, names in SPLITS.items()}
    datasets.DatasetDict({split.replace("-", "_"): part for split, part in parts.items()}).save_to_disk(folder)


def saved_with_column(folder: Path) -> None:
    datasets.Dataset(pa.concat_tables(table(names, split=split) for split, names in SPLITS.items())).save_to_disk(
        folder
    )


LAYOUTS: list[Callable[[Path], None]] = [
    beside,
    under_data,
    converted,
    named_after_the_corpus,
    folders_of_parts,
    lists,
    folders,
    column_of_list,
    column_of_table,
    saved,
    saved_with_column,
]


@pytest.mark.parametrize("make", LAYOUTS)
def test_the_split_alone_is_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    found = load_utterances(local(tmp_path, split="test"), seed=0)
    assert [(each.id, each.text) for each in found] == [("d", "text d"), ("e", "text e")]
    assert all(len(each.waveform()) == each.samples for each in found)
    with pytest.raises(UserError, match=r"^dataset\.split: .* has no split 'dev'.*Available: test, test.other, train"):
        load_utterances(local(tmp_path, split="dev"), seed=0)
    several = "several manifests" if make is lists else r"several splits\. Available: test, test.other, train"
    with pytest.raises(UserError, match=rf"^dataset\.(split|root): .* has {several}"):
        load_utterances(local(tmp_path), seed=0)


def whole_list(folder: Path) -> None:
    lines(folder / "manifest.jsonl", entries(folder, ["a"]))


def whole_set(folder: Path) -> None:
    datasets.Dataset(table(["a"])).save_to_disk(folder)


def whole_table(folder: Path) -> None:
    pq.write_table(table(["a"]), folder / "clips-0.parquet")


@pytest.mark.parametrize("make", [whole_list, whole_set, whole_table])
def test_data_that_tells_of_no_split_has_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    assert len(load_utterances(local(tmp_path), seed=0)) == 1
    with pytest.raises(UserError, match=r"^dataset\.split: .* has no split 'test', as nothing in it tells of splits"):
        load_utterances(local(tmp_path, split="test"), seed=0)
    with pytest.raises(UserError, match=r"^dataset\.config: .* has no config 'own'"):
        load_utterances(local(tmp_path, config="own"), seed=0)


def test_a_saved_set_that_says_which_split_it_is_is_that_one(tmp_path: Path) -> None:
    datasets.Dataset(table(["a"]), split="train").save_to_disk(tmp_path)
    assert len(load_utterances(local(tmp_path, split="train"), seed=0)) == 1
    with pytest.raises(UserError, match=r"^dataset\.split: .* has no split 'test'\. Available: train"):
        load_utterances(local(tmp_path, split="test"), seed=0)


def test_a_column_called_split_may_be_something_else(tmp_path: Path) -> None:
    column_of_list(tmp_path)
    assert len(load_utterances(local(tmp_path, columns={"split": None}), seed=0)) == 6
    keys = [Selection(local(tmp_path, split=split), None, 0).key for split in ("train", "test")]
    assert keys[0] != keys[1]


def test_files_of_one_set_without_splits_are_read_together(tmp_path: Path) -> None:
    for name in ("call_a", "call_b"):
        pq.write_table(table([name]), tmp_path / f"{name}.parquet")
    assert [each.id for each in load_utterances(local(tmp_path), seed=0)] == ["call_a", "call_b"]


def test_splits_whose_names_start_alike_are_not_mixed_on_the_hub_s_layout(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    beside(tmp_path / "own")
    assert [each.id for each in load_utterances(dataset(tmp_path, split="test"), seed=0)] == ["d", "e"]
    assert [each.id for each in load_utterances(dataset(tmp_path, split="test-other"), seed=0)] == ["f"]
    with pytest.raises(UserError, match=r"^dataset\.split: .* has several splits\. Available: test, test-other, train"):
        load_utterances(dataset(tmp_path, split=None), seed=0)


@pytest.mark.parametrize(
    ("name", "split", "told"),
    [
        ("test-00000-of-00002.parquet", "test", True),
        ("test.clean-00001-of-00002.parquet", "test.clean", True),
        ("train-00000-of-00001-a09b74b3ef9c3b56.parquet", "train", True),
        ("other-00000-of-00001.parquet", "other", True),
        ("validation.parquet", "validation", True),
        ("manifest_test.csv", "test", True),
        ("clips-0.parquet", "clips", False),
        ("manifest.jsonl", "manifest", False),
        ("testimony.jsonl", "testimony", False),
    ],
)
def test_names_of_files_tell_their_split(name: str, split: str, told: bool) -> None:
    assert (split_name(Path(name)), tells_split(Path(name))) == (split, told)
