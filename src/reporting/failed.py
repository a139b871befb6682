"""Points that failed: what a sweep wrote of those that left no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from src.records import read_record

_NAMED: Final = ("fingerprint", "model", "method", "bits", "dataset", "seed", "overrides")
_TOLD: Final = ("stage", "reason", "kind", "traceback", "log", "time")


def failed(output_dir: Path) -> list[dict[str, Any]]:
    """What failed and why, by time: the point's names and ``overrides``, and ``stage``, ``reason``, ``kind`` ...

    A failure is left out once the point has a record with the results of all its stages. A file that cannot be read is
    told as a failure of unknown reason.
    """
    found = [_failure(path) for path in sorted((output_dir / "failures").glob("*.json"))]
    return sorted((each for each in found if not _mended(output_dir, each)), key=lambda each: str(each["time"]))


def _failure(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        failure = told["failure"]
        stages = told.get("settings", {}).get("stages") or []
        return (
            {name: told.get(name) for name in _NAMED} | {name: failure.get(name) for name in _TOLD} | {"stages": stages}
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        unknown = dict.fromkeys((*_NAMED, *_TOLD))
        reason = f"{path.name} tells of a failure but cannot be read ({type(error).__name__})"
        return unknown | {"fingerprint": path.stem, "reason": reason, "stages": []}


def _mended(output_dir: Path, failure: dict[str, Any]) -> bool:
    try:
        record = read_record(output_dir / "records" / f"{failure['fingerprint']}.json")
        return record.results.stages.issuperset(failure["stages"])
    except (ValueError, TypeError):
        return False
