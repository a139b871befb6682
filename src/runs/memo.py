"""Points that are finished, found again in about a second: without the imports, the model or the clips of a run.

A result's name is a fingerprint, and working fingerprints out takes the imports of a whole run. So a run that ends
well leaves a note under a name that needs none of them: the settings, the code, and size and time of every file of
model and data. A note that no longer fits is not found, and the run works out the fingerprints again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hydra.core.hydra_config import HydraConfig

from src.data.hub_folder import HubFolder
from src.errors import UserError
from src.machine.provenance import gpus, processor
from src.models.formats import source_files
from src.models.source import resolve_source
from src.records import Record, read_whole
from src.runs import attempt
from src.runs.records import RECORD, present, save_record
from src.settings import DatasetSettings, ModelSettings, Settings
from src.settings.composite import Composite, members
from src.storage.digest import sha256_file, source
from src.storage.integrity import holds, state
from src.storage.store import Entry, Store, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from src.stages.point import Point

log = logging.getLogger(__name__)

NOTE = "note.json"
# Where results and tracking go, and what of them a sweep is told: no result depends on it.
APART: Final[dict[str, Any]] = {"output_dir": True, "sweep": True, "tracking": {"group": True}}
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
SCORING = ("jiwer", "whisper-normalizer")  # packages whose versions are part of fingerprints


def stored_record(study: Settings | Composite) -> Record | None:
    """The record of a study with a note, whose results are all intact; None where it has to be looked at closely."""
    note = _note(study)
    made = None if note is None else _vouched(note)
    if note is None or made is None:
        return None
    if not all(holds(note.root / name, known) for name, known in made["entries"].items()):
        return None
    folder = note.root.parent / "records"
    try:
        if any(sha256_file(folder / f"{name}.json") != digest for name, digest in made["records"].items()):
            return None
        return read_whole(folder / f"{made['record']}.json")
    except (OSError, ValueError):
        return None


def remember(study: Settings | Composite, points: Sequence[Point], name: str, entries: Iterable[Entry]) -> None:
    """Leaves the note of a study whose results are all stored and told to its tracker.

    It vouches for the record ``name``, those of the points, and all ``entries`` that they stand on; there is none where
    one of these is damaged.
    """
    note = _note(study)
    if note is None:
        return
    found = list(entries)
    if not all(entry.is_complete() for entry in found):
        return
    try:
        folder = note.root.parent / "records"
        names = sorted({name, *(point.fingerprint for point in points)})
        files = [folder / f"{each}.json" for each in names if read_whole(folder / f"{each}.json")]
        records = {file.stem: sha256_file(file) for file in files}
        states = {str(entry.path.relative_to(note.root)): state(entry.path) for entry in found}
    except (OSError, ValueError):  # changed meanwhile
        return
    made = {"record": name, "records": records, "entries": states}
    if _vouched(note) != made:
        note.obtain(lambda folder: write_json(folder / NOTE, made), anew=True)


def list_finished(sweep: Path, number: int, record: Record) -> None:
    """Puts a record into the sweep's folder, so that its table shows a point that is not submitted again."""
    write_json(sweep / f"finished_{number}" / RECORD, record.plain)


def found_again(study: Settings | Composite) -> Record | None:
    """The record of a finished study, shown and put into the job's folder as if it had been run."""
    record = stored_record(study)
    if record is None:
        return None
    output, job = Path(members(study)[0].output_dir), Path(HydraConfig.get().runtime.output_dir)
    for member in record.members:
        save_record(read_whole(output / "records" / f"{member.fingerprint}.json"), output, job / member.dataset)
    attempt.identify(record.fingerprint, members(study)[0], record.provenance)
    log.info("finished before; nothing is computed")
    present(record, save_record(record, output, job))
    return record


def _vouched(note: Entry) -> dict[str, Any] | None:
    """What a note says; None where it is not there, or damaged."""
    if not note.path.is_dir() or not note.is_complete():
        return None
    try:
        made: dict[str, Any] = json.loads((note.path / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return made


def _note(study: Settings | Composite) -> Entry | None:
    """Where the note of a study is, or would be; None where it cannot be told from files on this machine."""
    settings = members(study)
    if any(each.evaluate.rescore for each in settings):  # computes anew whatever is stored
        return None
    try:
        files = [file for each in settings for file in _inputs(each)]
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(set(files))]
    except (UserError, LookupError, OSError):  # said in full by the run itself
        return None
    name = study.name if isinstance(study, Composite) else None
    asked = [name, *(each.model_dump(mode="json", exclude=APART) for each in settings)]
    versions = {package: version(package) for package in SCORING}
    key = {"asked": _hashed(asked), "inputs": _hashed(states), "code": source(), **versions}
    if any("profile" in each.stages for each in settings):  # what is timed is of one machine
        key["machine"] = _hashed([processor(), {name: os.environ.get(name) for name in _THREADS}, gpus()])
    return Store(Path(settings[0].output_dir) / "cache").entry("finished", key)


def _inputs(settings: Settings) -> Iterator[Path]:
    """Every file that model, test set and calibration set are read from; none for what a commit on the hub names.

    Raises:
        LookupError: these cannot be listed: a user's own audio, or a hub model without a commit.
        UserError: something is not there.
    """
    yield from _model_files(settings.model)
    yield from _data_files(settings.dataset)
    yield from _data_files(settings.calib.dataset)


def _model_files(model: ModelSettings) -> Iterator[Path]:
    folder = resolve_source(model.source)
    if folder is not None:
        yield from source_files(folder)
    elif model.revision is None and not model.random_weights:
        raise LookupError(model.source)


def _data_files(dataset: DatasetSettings) -> Iterator[Path]:
    if dataset.source is None:
        raise LookupError(dataset.name)
    folder = resolve_source(dataset.root or dataset.source)
    if folder is not None:
        yield from HubFolder(folder).files(dataset.config, dataset.split)


def _hashed(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
