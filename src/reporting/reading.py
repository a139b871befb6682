"""Records from their files, one by one: what is damaged is told and left out, the others are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from src.errors import UserError
from src.machine.progress import progress
from src.records import Record, read_record
from src.storage.checksum import CHECKSUM
from src.storage.integrity import damage, holds

AGAIN: Final = "Remove what is damaged and run its point again"
_SHOWN: Final = 5  # files named in one sentence


def read_records(output_dir: Path) -> tuple[list[Record], list[str]]:
    """All records below ``output_dir`` in the order of the fingerprints, and sentences on those not to be trusted.

    Raises:
        UserError: there is none that can be read.
    """
    folder = output_dir / "records"
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError("outputs", f"{folder} holds no records", "Name the output_dir of a finished point or sweep")
    found, damaged = [], []
    for file in progress(files, "report, records"):
        try:
            record = read_record(file)
            if record.fingerprint != file.stem:
                raise ValueError(f"it is the record of {record.fingerprint}")
            found.append(record)
        except ValueError as error:
            damaged.append(f"{file.name} ({' '.join(str(error).split())})")
    told = "; ".join(damaged[:_SHOWN]) + (f"; and {len(damaged) - _SHOWN} more" if damaged[_SHOWN:] else "")
    if not found:
        raise UserError("outputs", f"none of the {len(files)} records in {folder} can be read: {told}", AGAIN)
    noun = "record" if len(damaged) == 1 else "records"
    left_out = f"Left out, as damaged or of another version: {len(damaged)} {noun} of {folder}: {told}. {AGAIN}."
    notes = [left_out] if damaged else []
    if unchecked := sum(CHECKSUM not in record.plain for record in found):
        notes.append(f"{unchecked} of {len(found)} records have no checksum, so that damage would not be noticed.")
    return found, notes


def damaged_entries(output_dir: Path, records: Sequence[Record]) -> list[str]:
    """A sentence on stored results behind ``records`` that are damaged; what was cleared away is not.

    Of what a note of a finished point vouches for, files that kept size and times are not read, but for those that the
    report itself reads.
    """
    cache = output_dir / "cache"
    vouched = dict[str, Any]()
    for note in cache.glob("finished/*/note.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            vouched |= json.loads(note.read_text(encoding="utf-8"))["entries"]
    named = {name for record in records for name in record.entries.values()}
    damaged = []
    folders = sorted(path for path in cache.glob("*/*") if path.name in named and path.is_dir())
    for folder in progress(folders, "report, checksums"):
        place = str(folder.relative_to(cache))
        if folder.parent.name != "evaluate" and place in vouched and holds(folder, vouched[place]):
            continue
        if (problem := damage(folder)) is not None:
            damaged.append(f"{place} ({problem})")
    if not damaged:
        return []
    told = "; ".join(damaged[:_SHOWN]) + (f"; and {len(damaged) - _SHOWN} more" if damaged[_SHOWN:] else "")
    return [f"Damaged below {cache}, though the records are whole: {told}. Running their points again mends it."]
