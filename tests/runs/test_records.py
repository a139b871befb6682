"""Records on disk: kept where they are whole, written again where anything in them was damaged."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from src.records import Record, read_whole
from src.runs.records import save_record
from src.storage.checksum import with_checksum
from tests.reporting.recorded import record


def of_a_point(**changes: Any) -> dict[str, Any]:
    whole = record("rtn", "clean", 10.0, times={"evaluate": {"seconds": 1}}, provenance={"git": "1"})
    return {**whole, "protocol": {"decoding": "greedy"}, **changes}


def save(output: Path, **changes: Any) -> Path:
    return save_record(Record.of(of_a_point(**changes)), output, output / "job")


def spoiled(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, next(iter(value), "new"): "spoiled"}
    return f"{value}0" if isinstance(value, str) else 7


@pytest.mark.parametrize("field", [*of_a_point(), "sha256", "unknown"])
def test_whatever_is_damaged_in_a_record_is_written_again(tmp_path: Path, field: str) -> None:
    path = save(tmp_path)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, field: spoiled(whole.get(field))}))
    with pytest.raises(ValueError, match=r"checksum differs|it is the record of"):
        read_whole(path)
    assert save(tmp_path) == path
    assert json.loads(path.read_text()) == whole == json.loads((tmp_path / "job" / "record.json").read_text())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", "[" * 100_000, "\0"], ids=range(7))
def test_what_is_no_record_is_written_again(tmp_path: Path, content: str) -> None:
    path = save(tmp_path)
    whole = path.read_text()
    path.write_text(content)
    assert save(tmp_path).read_text() == whole


def test_a_whole_record_keeps_where_its_results_were_computed(tmp_path: Path) -> None:
    path = save(tmp_path)
    before = path.read_bytes()
    save(tmp_path, provenance={"git": "2"}, times={})
    assert path.read_bytes() == before
    save(tmp_path, provenance={"git": "2"}, bits="w3a16")
    assert read_whole(path).bits == "w3a16"


@pytest.mark.parametrize("field", ["provenance", "dtype", "results.evaluate.metric"])
def test_a_record_of_another_schema_is_refused_by_the_field_that_is_amiss(tmp_path: Path, field: str) -> None:
    path, older = tmp_path / "rtn-clean.json", of_a_point()
    *parts, name = field.split(".")
    del reduce(dict.__getitem__, parts, older)[name]
    path.write_text(json.dumps(with_checksum(older)))
    with pytest.raises(ValueError, match=f"^{field}: Field required$"):
        read_whole(path)


def test_a_record_under_the_name_of_another_is_not_believed(tmp_path: Path) -> None:
    path = save(tmp_path)
    with pytest.raises(ValueError, match="it is the record of rtn-clean"):
        read_whole(path.rename(path.with_name("0123456789abcdef.json")))
