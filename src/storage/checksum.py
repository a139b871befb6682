"""Records carry a digest of their own content, so that one that was damaged or changed afterwards is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

RECORD: Final = "record.json"  # in a job's own folder
CHECKSUM: Final = "sha256"  # of the rest of the record, as canonical JSON


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({key: value for key, value in record.items() if key != CHECKSUM}))
    return {**plain, CHECKSUM: _digest(plain)}


def distrust(record: Mapping[str, Any]) -> str | None:
    """Why a record cannot be trusted: it is not as it was written; None where it is, or where no digest tells."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    if CHECKSUM in record and record[CHECKSUM] != _digest(content):
        return "its checksum differs: it was damaged or changed"
    return None


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
