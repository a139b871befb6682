"""JSON lines that outlive the process that writes them; a last line cut short by a kill is dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any


def read_lines(journal: Path) -> list[Any]:
    """What was appended so far, in order; the file is cut back to its last whole line."""
    if not journal.exists():
        return []
    whole, _, cut = journal.read_bytes().rpartition(b"\n")
    if cut:
        os.truncate(journal, len(whole) + 1 if whole else 0)
    return [json.loads(line) for line in whole.split(b"\n") if line]


def append_line(file: IO[str], value: Any) -> None:
    """Writes ``value`` as one line and flushes it to the disk."""
    file.write(json.dumps(value) + "\n")
    file.flush()
    os.fsync(file.fileno())
