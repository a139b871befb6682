"""Records with the transcripts behind them, and whether two of them can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.records import Record, read_record
from src.scoring.wer import SCORER
from src.storage.store import Entry
from src.text.normalizers import Rules

RUN_AGAIN = "Run its point again with stages=[evaluate]; what is stored is reused"


@dataclass(frozen=True)
class StoredScores:
    """A record, what its transcripts are of, and the folder they are in."""

    name: str
    record: Record
    dataset: dict[str, Any]
    folder: Path


def find(name: str, output_dir: Path) -> StoredScores:
    """The record of a file or of a fingerprint's first characters, with its stored transcripts.

    Raises:
        UserError: there is no such record or more than one, it was not evaluated, or its transcripts are not stored.
    """
    path = _path(name, output_dir)
    root = path.resolve().parent.parent if path.parent.name == "records" else output_dir
    record = _read(path)
    if record.members:
        names = ", ".join(member.fingerprint for member in record.members)
        raise UserError("record", f"{path} is a mean over test sets", f"Compare its members: {names}")
    if record.results.evaluate is None or record.transcripts is None:
        raise UserError("record", f"{path} tells of no scored transcripts", RUN_AGAIN)
    folder = root / "cache" / "transcripts" / record.transcripts
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        key = {}
    if not key or not Entry(root / "cache", "transcripts", key).is_complete():
        problem = f"the transcripts of {path} are absent or damaged ({folder})"
        raise UserError("record", problem, f"{RUN_AGAIN}, or name with --output-dir the folder they are in")
    return StoredScores(record.fingerprint, record, key["dataset"], folder)


def find_sets(record: Record, output_dir: Path) -> list[StoredScores]:
    """A record below ``output_dir`` with its stored transcripts, or those of a mean's members: one entry a test set.

    Raises:
        UserError: see :func:`find`.
    """
    return [find(name, output_dir) for name in [each.fingerprint for each in record.members] or [record.fingerprint]]


def _path(name: str, output_dir: Path) -> Path:
    given = Path(name)
    if given.is_file():
        return given
    folder = output_dir / "records"
    found = sorted(folder.glob("*.json"))
    chosen = [path for path in found if path.stem.startswith(name)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise UserError("record", f"{name!r} is the beginning of {len(chosen)} records in {folder}", "Write more of it")
    problem = f"{name!r} is neither a file nor one of the {len(found)} records in {folder}"
    raise UserError("record", problem, "Name a record's file, or set --output-dir to where the point was run")


def _read(path: Path) -> Record:
    try:
        return read_record(path)
    except ValueError as error:
        raise UserError("record", f"{path} cannot be read ({error})", "Name a file of the folder records") from None


def require_comparable(base: StoredScores, other: StoredScores) -> None:
    """Checks that both were scored on the same utterances in the same way, and that this installation does so too.

    Raises:
        UserError: test set, subset, its seed, normalizer or scorer differ.
    """
    rules = Rules.named(base.record.versions.normalizer)
    for name, installed in (("normalizer", rules.name), ("scorer", SCORER)):
        versions = [getattr(each.record.versions, name) for each in (base, other)]
        if set(versions) != {installed}:
            told = f"{base.name} was scored with {versions[0]}, {other.name} with {versions[1]}; here is {installed}"
            remedy = "Score both again with what is installed: stages=[evaluate]"
            if name == "normalizer" and len({Rules.named(version) for version in versions}) > 1:
                remedy = "Score both alike: dataset.language and evaluate.clean_text decide"
            raise UserError(name, told, remedy)
    if base.dataset != other.dataset:
        field, (ours, theirs) = _difference(base, other)
        raise UserError(field, f"{base.name} is of {ours}, {other.name} of {theirs}", f"Use the same {field} for both")


def _difference(base: StoredScores, other: StoredScores) -> tuple[str, tuple[str, str]]:
    """The first setting in which two test sets differ, and both values in words."""
    a, b = base.record, other.record
    if a.dataset != b.dataset:
        return "dataset", (a.dataset, b.dataset)
    if a.subset != b.subset:
        return "dataset.limit", (f"{a.subset or 'all'} utterances", f"{b.subset or 'all'} utterances")
    if a.subset is not None and a.seed != b.seed:
        return "seed", (f"a subset drawn with seed {a.seed}", f"one drawn with seed {b.seed}")
    keys = [key for key in {**base.dataset, **other.dataset} if base.dataset.get(key) != other.dataset.get(key)]
    return "dataset", (a.dataset, f"another {', '.join(keys)} of it")
