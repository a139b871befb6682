"""Plots of distributions: which files, which lines, and what is said where there is nothing to plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.errors import UserError
from src.records import Record
from src.reporting.distributions import plot_distributions
from tests import commands
from tests.composed import composed
from tests.profiling.profiling_points import quantized
from tests.reporting.recorded import record, write
from tests.tiny import tiny_moonshine


def _record(method: str, *overrides: str, dataset: str = "a", **inputs: Mapping[str, float]) -> dict[str, Any]:
    """A record of a small model that was really quantized."""
    settings = composed(f"method={method}", *overrides)
    rows = quantized(tiny_moonshine(), settings).rows
    results = {"quantize": {"layers": rows}, "calibrate": {"distributions": inputs}}
    named = {"model": "tiny", "method": method, "bits": settings.bits_name, "dataset": dataset}
    return record("rtn", "clean", 1.0) | {**named, "results": json.loads(json.dumps(results))}


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    link = {"kurtosis": 40.0, "peak": 30.0, "outlier_channels": 3}
    calibrated = {"model.encoder.layers.0.self_attn.qkv": link}
    return [
        _record("rtn", "wbits=4", **calibrated),
        _record("rtn", "wbits=4", dataset="b", **calibrated),
        _record("rtn", "wbits=2", **calibrated),
        _record("gptq", "wbits=4", **calibrated),
    ]


def test_a_file_a_model_and_a_file_a_bit_config(records: list[dict[str, Any]], tmp_path: Path) -> None:
    paths = plot_distributions(map(Record.of, records), tmp_path)
    assert [path.name for path in paths] == ["distributions-tiny.png", "sqnr-tiny-w4a16.png", "sqnr-tiny-w2a16.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_no_name_leads_out_of_the_folder(records: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    paths = plot_distributions([Record.of(records[0] | {"model": "../../x", "bits": "$w/4"})], folder)
    assert [path.name for path in paths] == ["distributions-..-..-x.png", "sqnr-..-..-x--w-4.png"]
    assert {path.parent for path in paths} == {folder}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_layer_tables_tell_distributions_and_noise(records: list[dict[str, Any]]) -> None:
    rtn, gptq = (records[each]["results"]["quantize"]["layers"] for each in (0, 3))
    assert all(row["input_distribution"] is None and row["output_sqnr_db"] is None for row in rtn)
    for plain, row in zip(rtn, gptq, strict=True):
        assert row["link"] == plain["link"]
        assert row["weight_distribution"] == plain["weight_distribution"]  # neither changes weights before it rounds
        assert row["input_distribution"]["peak"] >= 1
        assert row["weight_sqnr_db"] == pytest.approx(plain["weight_sqnr_db"], abs=12)
    assert sum(row["output_sqnr_db"] for row in gptq) > sum(row["weight_sqnr_db"] for row in gptq)


def test_fewer_bits_are_noisier(records: list[dict[str, Any]]) -> None:
    four, two = (records[each]["results"]["quantize"]["layers"] for each in (0, 2))
    assert all(w4["weight_sqnr_db"] > w2["weight_sqnr_db"] + 9 for w4, w2 in zip(four, two, strict=True))


def test_records_without_such_figures_are_told(tmp_path: Path) -> None:
    older = record("rtn", "clean", 12.0)
    for results in ({}, {"quantize": {"layers": [{"linear": "x", "weight_error": 0.1}]}}):
        with pytest.raises(UserError, match="no record tells how its weights are distributed"):
            plot_distributions([Record.of({**older, "results": results})], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_plots_and_names_them(records: list[dict[str, Any]], tmp_path: Path) -> None:
    whole = record("rtn", "clean", 12.0)
    write(tmp_path, *({**whole, **each, "fingerprint": str(number)} for number, each in enumerate(records)))
    (tmp_path / "records" / "damaged.json").write_text("{", encoding="utf-8")
    done = commands.run("src.distributions", tmp_path, "bits=w2*", "method=rtn,gptq")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "distributions"
    assert done.stdout.split() == [str(folder / "distributions-tiny.png"), str(folder / "sqnr-tiny-w2a16.png")]
    assert "Left out, as damaged or of another version: 1 record" in done.stderr
    mistaken = commands.run("src.distributions", tmp_path, "bits=w9*")
    assert mistaken.returncode == 1
    assert "bits matches no record with 'w9*'" in mistaken.stderr
    assert "Traceback" not in mistaken.stderr
