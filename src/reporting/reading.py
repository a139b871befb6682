"""Records from their files, one by one: what is damaged is told and left out, the others are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError, model_validator

from src.errors import UserError
from src.metrics import SCORES
from src.storage.checksum import CHECKSUM, distrust
from src.storage.integrity import damage, holds

AGAIN: Final = "Remove what is damaged and run its point again"
_SHOWN: Final = 5  # files named in one sentence


_RATE: Final[TypeAdapter[Any]] = TypeAdapter(FiniteFloat | None)


class _Part(BaseModel):
    """What reports read of a record; it may hold more."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class _Layer(_Part):
    linear: str
    weight_error: FiniteFloat | None = None
    output_error: FiniteFloat | None = None


class _Quantized(_Part):
    disk_bytes: int | None = None
    layers: Sequence[_Layer] = ()


class _Versus(_Part):
    difference: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    significant: bool


class _Modes(_Part):
    loops: int | None = None
    empty: int | None = None
    capped: int | None = None


class _Evaluated(_Part):
    wer: FiniteFloat
    wer_low: FiniteFloat
    wer_high: FiniteFloat
    cer: FiniteFloat
    fp_wer: FiniteFloat
    utterances: int
    words: int | None = None
    substitutions: int | None = None
    deletions: int | None = None
    insertions: int | None = None
    failures: _Modes = _Modes()
    changed_from_fp: Mapping[str, FiniteFloat] = {}
    versus_fp: _Versus

    @model_validator(mode="after")
    def _has_rates_in_numbers(self) -> _Evaluated:
        for name in (name for metric in SCORES for name in metric.described):
            _RATE.validate_python((self.model_extra or {}).get(name), strict=True)
        return self


class _Profiled(_Part):
    memory_io_bytes: FiniteFloat | None = None
    bops: FiniteFloat | None = None
    bits_per_weight: FiniteFloat | None = None


class _Results(_Part):
    quantize: _Quantized | None = None
    evaluate: _Evaluated | None = None
    profile: _Profiled | None = None


class _Versions(_Part):
    model: Mapping[str, Any]
    normalizer: str
    scorer: str


class _Record(_Part):
    fingerprint: str
    # `schema` by its name would hide a method of pydantic's; every other name is the record's own.
    model: str
    method: str
    bits: str
    wbits: int
    abits: int
    kvbits: int
    group_size: int
    dataset: str
    versions: _Versions
    results: _Results
    settings: Mapping[str, Any]


_CHECK: Final = TypeAdapter(_Record)


def read_record(file: Path) -> dict[str, Any]:
    """The record in a file.

    Raises:
        ValueError: it cannot be read, or is no record; says what is wrong in a few words.
    """
    if not file.is_file():
        raise ValueError("it is no file")
    try:
        record: Any = json.loads(file.read_text(encoding="utf-8"))
        _CHECK.validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else "it is no record") from None
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "schema" not in record:
        raise ValueError("schema: Field required")
    if (problem := distrust(record)) is not None:
        raise ValueError(problem)
    found: dict[str, Any] = record
    return found


def read_records(output_dir: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All records below ``output_dir`` in the order of the fingerprints, and sentences on those not to be trusted.

    Raises:
        UserError: there is none that can be read.
    """
    folder = output_dir / "records"
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError("outputs", f"{folder} holds no records", "Name the output_dir of a finished point or sweep")
    found, damaged = [], []
    for file in files:
        try:
            record = read_record(file)
            if record["fingerprint"] != file.stem:
                raise ValueError(f"it is the record of {record['fingerprint']!r}")
            found.append(record)
        except ValueError as error:
            damaged.append(f"{file.name} ({' '.join(str(error).split())})")
    told = "; ".join(damaged[:_SHOWN]) + (f"; and {len(damaged) - _SHOWN} more" if damaged[_SHOWN:] else "")
    if not found:
        raise UserError("outputs", f"none of the {len(files)} records in {folder} can be read: {told}", AGAIN)
    noun = "record" if len(damaged) == 1 else "records"
    notes = [f"Left out, as damaged: {len(damaged)} {noun} of {folder}: {told}. {AGAIN}."] if damaged else []
    if unchecked := sum(CHECKSUM not in record for record in found):
        notes.append(f"{unchecked} of {len(found)} records have no checksum, so that damage would not be noticed.")
    return found, notes


def damaged_entries(output_dir: Path, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on stored results behind ``records`` that are damaged; what was cleared away is not.

    Of what a note of a finished point vouches for, files that kept size and times are not read.
    """
    cache = output_dir / "cache"
    vouched = dict[str, Any]()
    for note in cache.glob("finished/*/note.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            vouched |= json.loads(note.read_text(encoding="utf-8"))["entries"]
    named = {name for record in records for name in record.get("entries", {}).values()}
    damaged = []
    for folder in sorted(path for path in cache.glob("*/*") if path.name in named and path.is_dir()):
        place = str(folder.relative_to(cache))
        if place in vouched and holds(folder, vouched[place]):
            continue
        if (problem := damage(folder)) is not None:
            damaged.append(f"{place} ({problem})")
    if not damaged:
        return []
    told = "; ".join(damaged[:_SHOWN]) + (f"; and {len(damaged) - _SHOWN} more" if damaged[_SHOWN:] else "")
    return [f"Damaged below {cache}, though the records are whole: {told}. Running their points again mends it."]
