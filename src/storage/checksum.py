"""Records carry a digest of their own content, so that one that was damaged or changed afterwards is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

RECORD: Final = "record.json"  # in a job's own folder
CHECKSUM: Final = "sha256"  # of the rest of the record, as canonical JSON


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({key: value for key, value in record.items() if key != CHECKSUM}))
    return {**plain, CHECKSUM: _digest(plain)}


def read_checked(path: Path) -> dict[str, Any]:
    """A record as it was written.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no record, it has no digest or does not match it, or it is the record of another point.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict) or not {"results", "settings", "fingerprint"} <= record.keys():
        raise ValueError("it is no record")
    if CHECKSUM not in record:
        raise ValueError("it has no checksum")
    if record["fingerprint"] != path.stem:
        raise ValueError(f"it is the record of {record['fingerprint']}")
    if (problem := distrust(record)) is not None:
        raise ValueError(problem)
    return record


def distrust(record: Mapping[str, Any]) -> str | None:
    """Why a record cannot be trusted: it is not as it was written; None where it is, or where no digest tells."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    if CHECKSUM in record and record[CHECKSUM] != _digest(content):
        return "its checksum differs: it was damaged or changed"
    return None


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
