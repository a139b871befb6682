"""The record of a point: what was asked for, what came out, and what stands behind the numbers.

Records are the truth that tables, plots and W&B mirror. Wall-clock figures and where results were made are kept under
``times``, ``measured`` and ``provenance``; everything else is the same whenever the same point is run.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src.machine.provenance import combined
from src.models.families import family_of
from src.records import Record, read_whole
from src.settings import BIT_WIDTHS, Settings
from src.storage.checksum import CHECKSUM, with_checksum
from src.storage.checksum import RECORD as RECORD
from src.storage.redaction import redact, without_secrets
from src.storage.store import write_json
from src.terminal import console

if TYPE_CHECKING:
    from src.stages.point import Point

log = logging.getLogger(__name__)

# What need not be the same: settings also tell where results go.
_CIRCUMSTANCES = {"times", "measured", "entries", "provenance", "settings", CHECKSUM}


def build_record(point: Point) -> Record:
    """The record of all stages whose results are stored; what is no longer, it keeps of the record that is there.

    ``entries`` names the stored results that it tells of, and ``provenance`` where each was made. What was not measured
    is null under ``measured``, and ``refused`` there says why.
    """
    from src.runs.record_parts import found_parts
    from src.scoring.wer import SCORER
    from src.stages.point import SCHEMA

    settings = point.settings
    parts = found_parts(point, _trusted(_path(Path(settings.output_dir), point.fingerprint)))
    results = parts.results
    layers = results.get("quantize", {}).get("layers", [])
    plain = {
        "fingerprint": point.fingerprint,
        "schema": SCHEMA,
        "model": settings.model.name,
        "method": settings.method_name,
        "bits": settings.bits_name,
        **{width: getattr(settings, width) for width in BIT_WIDTHS},
        "group_size": settings.group_size,
        "dtype": settings.dtype,
        "runtime": settings.runtime_name,
        "dataset": settings.dataset.name,
        "subset": settings.dataset.limit,
        "seed": settings.seed,
        "versions": {"model": point.model_identity, "normalizer": point.rules.name, "scorer": SCORER},
        "protocol": protocol(settings),
        "transcripts": point.transcripts.fingerprint,
        "results": results,
        "fallbacks": {row["linear"]: row["notes"] for row in layers if row["notes"]},
        "measured": parts.measured,
        "times": parts.times,
        "entries": parts.entries,
        "provenance": combined(parts.made),
        "settings": redact(settings.model_dump(mode="json", exclude={"sweep"})),  # says nothing of this point
    }
    return Record.of(plain)


def protocol(settings: Settings) -> dict[str, Any]:
    """How the transcripts came about: the Open ASR leaderboard's way, and what the settings change of it."""
    told = family_of(settings.model.family).told_language and settings.model.language is not None
    return {
        "decoding": "greedy",
        "language": settings.model.language,
        "task": "transcribe" if told else None,  # English-only checkpoints have no such token
        "suppress_tokens": settings.evaluate.suppress_tokens,
        "window": settings.evaluate.window,
        "reference_language": settings.dataset.language,
        "dropped_references": "empty after normalisation, or marked 'ignore time segment in scoring'",
    }


def save_record(record: Record, output_dir: Path, job_dir: Path) -> Path:
    """Writes the record under its fingerprint, and into the job's own folder for the sweep's table.

    A record that is there already, undamaged, and holds the same stays as it is. Both carry a digest of their content:
    see :mod:`src.storage.checksum`.
    """
    path = _path(output_dir, record.fingerprint)
    written = with_checksum(json.loads(without_secrets(json.dumps(record.plain))))
    if not _holds(path, written):
        write_json(path, written)
    write_json(job_dir / RECORD, written)
    return path


def present(record: Record, path: Path) -> None:
    """Shows a record that is not part of a sweep as tables, and says where it is stored."""
    if HydraConfig.get().mode is RunMode.RUN:
        console.show([record])
        console.show_measured([record])
    log.info("record: %s", path)


def _trusted(path: Path) -> Record | None:
    """A stored record as it was written; None where there is none that can be trusted."""
    with suppress(ValueError):
        return read_whole(path)
    return None


def _path(output_dir: Path, name: str) -> Path:
    return output_dir / "records" / f"{name}.json"


def _holds(path: Path, record: dict[str, Any]) -> bool:
    """Whether the file is whole, and has what the record says of its point and what was measured for it."""
    if not path.exists():
        return False
    try:
        held = read_whole(path).plain
    except ValueError as error:
        log.warning("the record %s cannot be trusted (%s): it is written again", path, error)
        return False
    timed, own = ({**each.get("measured", {}), "refused": None} for each in (held, record))  # a reason is of one run
    return timed == own and all(held.get(name) == record[name] for name in record.keys() - _CIRCUMSTANCES)
