"""Records as points leave them, with real settings and made-up scores."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from src.records import Race, save_race
from src.reporting.collect import collect
from src.reporting.reading import read_records
from src.storage.checksum import with_checksum
from src.storage.store import Store
from tests.composed import composed


@cache
def _settings(method: str, dataset: str) -> dict[str, Any]:
    return composed(f"method={method}", f"dataset=sandbox_{dataset}").model_dump(mode="json")


def record(method: str, dataset: str, wer: float, **changes: Any) -> dict[str, Any]:
    """A record as a point of the given name would leave it, with real settings and made-up scores."""
    settings = copy.deepcopy(_settings(method, dataset))
    plain: dict[str, Any] = {
        "fingerprint": f"{method}-{dataset}",
        "schema": 3,
        "model": "sandbox_moonshine",
        "method": method,
        "bits": "w4a16",
        **{name: settings[name] for name in ("wbits", "abits", "kvbits", "group_size")},
        "dtype": "float32",
        "dataset": dataset,
        "subset": None,
        "seed": 0,
        "versions": {"model": {}, "normalizer": "whisper-english/0.1", "scorer": "jiwer/4"},
        "results": {
            "quantize": {
                "disk_bytes": 1000,
                "layers": [
                    {"linear": f"model.encoder.layers.{n}.fc1", "weight_error": 0.1 * n, "output_error": None}
                    for n in range(1, 4)
                ],
            },
            "evaluate": {
                **{
                    "metric": "WER",
                    "wer": wer,
                    "wer_low": wer - 1,
                    "wer_high": wer + 1,
                    "cer": wer / 2,
                    "fp_wer": 9.0,
                    "utterances": 10,
                    "words": 200,
                    "substitutions": int(wer),
                    "deletions": 2,
                    "insertions": 1,
                },
                "failures": {"loops": 1, "empty": 0, "capped": 2},
                "changed_from_fp": {"transcripts": 3, "better": 1, "worse": 2, "words": 4},
                "versus_fp": {
                    **{"difference": wer - 9, "low": wer - 11, "high": wer - 7},
                    **{"p_value": 0.01 if abs(wer - 9) > 2 else 0.5, "significant": abs(wer - 9) > 2},
                },
            },
            "profile": {"memory_io_bytes": 1.0, "bops": 2.0, "bits_per_weight": 4.1},
        },
        "transcripts": f"transcripts-{method}-{dataset}",
        "measured": {},
        "times": {},
        "entries": {},
        "provenance": {},
        "settings": settings,
    }
    return {**plain, **changes}


def write(folder: Path, *records: dict[str, Any]) -> Path:
    """Puts the records where points leave them; returns the folder."""
    for each in records:
        _save(folder / "records" / f"{each['fingerprint']}.json", with_checksum(each))
    return folder


def points(folder: Path) -> pd.DataFrame:
    """The points below a folder as the report has them."""
    return collect(read_records(folder)[0])


def write_worst(folder: Path, of: dict[str, Any], *rows: dict[str, Any]) -> None:
    """Stores ``rows`` as the evaluate stage of the record's point does."""
    versions = {name: of["versions"][name] for name in ("normalizer", "scorer")}
    key = {"transcripts": of["transcripts"], "seed": of["settings"]["seed"], **versions}
    entry = Store(folder / "cache").entry("evaluate", key)
    entry.obtain(lambda partial: _save(partial / "worst.json", {"rows": rows}), anew=True)


def worst_row(utterance: str, reference: str, own: str, fp: str) -> dict[str, Any]:
    """A row of ``worst.json``."""
    texts = {"id": utterance, "reference": reference, "hypothesis": own, "fp hypothesis": fp}
    return {**texts, "errors": 2, "fp errors": 0}


def write_race(folder: Path, name: str, **changes: Any) -> Race:
    """A race as ``hydra/sweeper=fit`` leaves it: two candidates were heard, one of them to the end, and one was not."""

    def entrant(candidate: str, outcome: str, megabytes: float, *rounds: tuple[int | None, float]) -> dict[str, Any]:
        heard = [
            {"clips": clips, "record": f"{candidate}-{clips}", "utterances": clips or 10}
            | {"wer": wer, "wer_low": wer - 1, "wer_high": wer + 1}
            for clips, wer in rounds
        ]
        about = {"overrides": [f"method={candidate}"], "outcome": outcome, "front": bool(rounds), "rounds": heard}
        names = {"model": "sandbox_moonshine", "method": candidate, "bits": "w4a16", "record": candidate}
        return {**about, **names, "megabytes": megabytes}

    candidates = [
        entrant("rtn", "+9.00 (+4.00 to +12.00) on 6 clips", 1.0, (6, 19.0)),
        entrant("gptq", "chosen", 2.0, (6, 10.0), (None, 11.0)),
        entrant("fp", "too large", 16.0),
    ]
    agreement = {"proxy": "WER on 6 clips", "model": None, "clips": None, "candidates": 3, "spearman": 0.5}
    plain = {"name": name, "bounds": {"megabytes": 3.0}, "clips": [6], "fixed": ["calib.n=2"], "metric": "WER"}
    told = {"dataset": "clean", "candidates": candidates, "agreements": [agreement], **changes}
    race = Race.checked({**plain, **told})
    save_race(race, folder)
    return race


def write_failure(folder: Path, fingerprint: str, **changes: Any) -> None:
    """A failure as a sweep leaves it."""
    failure = {
        "stage": "quantize",
        "reason": "ValueError: no such thing",
        "kind": "ValueError",
        "traceback": "Traceback ...",
        "log": "sweeps/1/main.log",
        "time": "2026-01-01T00:00:00+00:00",
    }
    point = {"fingerprint": fingerprint, "model": "sandbox_moonshine", "method": "spqr", "bits": "w2a16", "seed": 0}
    settings = {"dataset": "clean", "settings": {"stages": ["quantize", "evaluate"]}, "overrides": ["method=spqr"]}
    _save(folder / "failures" / f"{fingerprint}.json", {**point, **settings, "failure": {**failure, **changes}})


def _save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
