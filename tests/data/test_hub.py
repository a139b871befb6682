"""The hub path, with the network and the library's answers simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.data import hub
from src.errors import UserError
from tests.data.clips import clip, write
from tests.data.sets import dataset
from tests.utterances import load_utterances

datasets = pytest.importorskip("datasets")
SET = dataset(None, name="ami", source="hf-audio/some-set", revision="abc", config="ami")


def answer(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> list[tuple[Any, ...]]:
    """Makes ``datasets.load_dataset`` return or raise ``outcome``; the list fills with what it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(source: str, config: str, split: str, revision: str | None) -> Any:
        asked.append((source, config, split, revision))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def table(tmp_path: Path, rows: list[dict[str, Any]]) -> Any:
    write(tmp_path / "rows.parquet", rows)
    features = {name: datasets.Value("string") for name in ("dataset", "text", "id")}
    features |= {"audio": datasets.Audio(decode=True), "audio_length_s": datasets.Value("float64")}
    return datasets.Dataset.from_parquet(
        str(tmp_path / "rows.parquet"), features=datasets.Features(features), cache_dir=str(tmp_path / "cache")
    )


def test_rows_arrive_undecoded_at_the_pinned_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [clip("b", "two"), clip("a", "one"), clip("c", "?!")]
    asked = answer(monkeypatch, table(tmp_path, rows))
    utterances = load_utterances(SET, seed=0)
    assert set(asked) == {("hf-audio/some-set", "ami", "test", "abc")}
    assert [(u.id, u.text) for u in utterances] == [("a", "one"), ("b", "two")]
    assert utterances[0].encoded() == rows[1]["audio"]["bytes"]


def test_without_a_network_the_remedy_is_a_download_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, ConnectionError("Couldn't reach the Hub"))
    with pytest.raises(UserError) as caught:
        load_utterances(SET, seed=0)
    assert caught.value.field == "dataset.source"
    assert "hf download --repo-type dataset hf-audio/some-set --revision abc --local-dir DIR" in caught.value.remedy
    assert "dataset.root=DIR" in caught.value.remedy


def test_of_several_sets_one_waits_for_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_silent", [float("-inf")])
    offline = list[bool]()

    def load_dataset(*_: Any, **__: Any) -> None:
        offline.append(datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = datasets.config.HF_HUB_OFFLINE
    for _ in range(2):
        with pytest.raises(UserError, match="the hub cannot be reached"):
            hub.download(SET)
    assert offline == [before, True]
    assert before == datasets.config.HF_HUB_OFFLINE


def test_an_unknown_set_or_revision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, datasets.exceptions.DatasetNotFoundError("Revision 'abc' doesn't exist"))
    with pytest.raises(UserError, match=r"dataset\.source: 'hf-audio/some-set' is no folder here.*Revision 'abc'"):
        load_utterances(SET, seed=0)


def test_an_unknown_config_lists_what_the_library_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, ValueError("BuilderConfig 'ami' not found. Available: ['amy']"))
    with pytest.raises(UserError, match=r"dataset\.config: .*no config 'ami'.*Available: \['amy'\]"):
        load_utterances(SET, seed=0)


def test_missing_columns_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(monkeypatch, table(tmp_path, [clip("a")]).remove_columns(["text"]))
    with pytest.raises(UserError, match="has no column text"):
        load_utterances(SET, seed=0)
