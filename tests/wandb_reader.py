"""Reads the transaction logs of Weights & Biases runs; wandb itself no longer ships a reader.

A log is LevelDB's: a 7-byte header, then 32 KiB blocks of chunks, each headed by crc32 (4 bytes), length (2) and type
(1: whole record, 2, 3, 4: its first, middle and last chunk). The payload is a protobuf ``Record``.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

_FILE_HEADER, _BLOCK, _CHUNK_HEADER = 7, 32 * 1024, 7
_WHOLE, _LAST = 1, 4
_CLOSING_SECONDS = 5.0


@dataclass
class OfflineRun:
    """What one run directory holds, values decoded from JSON."""

    directory: Path
    id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, pb.ArtifactRecord] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None
    host: str = ""
    started: float = 0.0  # seconds since the epoch
    kinds: set[str] = field(default_factory=set)

    def logged(self, key: str) -> list[Any]:
        """Values of ``key`` in the order they were logged."""
        return [row[key] for row in self.history if key in row]

    def table(self, key: str) -> dict[str, Any]:
        """Columns, their types and data of the last table logged under ``key``."""
        entries = [entry for artifact in self.artifacts.values() for entry in artifact.manifest.contents]
        paths = [entry.local_path for entry in entries if entry.path == f"{key}.table.json"]
        return json.loads(Path(paths[-1]).read_text())


def read_runs(directory: Path) -> list[OfflineRun]:
    """All offline runs below ``directory / "wandb"``, oldest first.

    wandb's service closes a log a moment after ``finish`` returned, so a log without an exit is waited for.
    """
    logs = list((directory / "wandb").glob("offline-run-*/*.wandb"))
    deadline = time.monotonic() + _CLOSING_SECONDS
    runs = [_read_run(log) for log in logs]
    while any(run.exit_code is None for run in runs) and time.monotonic() < deadline:
        time.sleep(0.01)
        runs = [_read_run(log) for log in logs]
    return sorted(runs, key=lambda run: run.started)


def _payloads(data: bytes) -> Iterator[bytes]:
    position, record = _FILE_HEADER, b""
    while position + _CHUNK_HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _CHUNK_HEADER:  # too short for a header: padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += _CHUNK_HEADER
        record += data[position : position + length]
        position += length
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""


def _name(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def _read_run(log: Path) -> OfflineRun:
    run = OfflineRun(log.parent)
    for payload in _payloads(log.read_bytes()):
        record = pb.Record.FromString(payload)
        kind = record.WhichOneof("record_type")
        run.kinds.add(kind or "")
        if kind == "run":
            run.host = record.run.host
            run.started = record.run.start_time.ToNanoseconds() / 1e9
            run.id, run.name, run.group = record.run.run_id, record.run.display_name, record.run.run_group
            run.project, run.job_type, run.tags = record.run.project, record.run.job_type, list(record.run.tags)
            run.config |= {_name(item): json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            run.config |= {_name(item): json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            run.history.append({_name(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            run.summary |= {_name(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            run.artifacts[record.artifact.name] = record.artifact
        elif kind == "files":
            run.files += [item.path for item in record.files.files]
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run
