"""The record of a point: what was asked for, what came out, and what stands behind the numbers.

Records are the truth that tables, plots and W&B mirror. Wall-clock figures and where the point ran are kept under
``times``, ``measured`` and ``provenance``; everything else is the same whenever the same point is run.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from src import console
from src.checksum import CHECKSUM, read_checked, with_checksum
from src.checksum import RECORD as RECORD
from src.redaction import redact, without_secrets
from src.settings import BIT_WIDTHS, Settings
from src.store import write_json

if TYPE_CHECKING:
    from src.point import Point

log = logging.getLogger(__name__)

# What need not be the same: settings also tell where results go, and fallbacks are of a stage that may be missing.
_CIRCUMSTANCES = {"results", "fallbacks", "times", "measured", "provenance", "settings", CHECKSUM}
MEASURED = ("latency", "encoder_ms", "token_ms", "peak_memory_mib")  # parts of the profile that a clock decides


def build_record(point: Point, provenance: dict[str, Any]) -> dict[str, Any]:
    """The record of all stages whose results are stored."""
    from src.evaluation.wer import SCORER
    from src.point import SCHEMA
    from src.stages import ALL_STAGES
    from src.stages.decoding import speed

    settings = point.settings
    done = {stage.name: stage for stage in ALL_STAGES if stage.entry(point).is_complete()}
    results = {name: stage.result(point) for name, stage in done.items()}
    profile = results.get("profile", {})
    measured = {name: profile.pop(name) for name in MEASURED if name in profile}
    measured |= {"evaluate": speed(point)} if "evaluate" in done else {}
    measured |= {"runtimes": results.pop("measure")} if "measure" in results else {}
    layers = results.get("quantize", {}).get("layers", [])
    return {
        "fingerprint": point.fingerprint,
        "schema": SCHEMA,
        "model": settings.model.name,
        "method": settings.method_name,
        "bits": settings.bits_name,
        **{width: getattr(settings, width) for width in BIT_WIDTHS},
        "group_size": settings.group_size,
        "dtype": settings.dtype,
        "dataset": settings.dataset.name,
        "subset": settings.dataset.limit,
        "seed": settings.seed,
        "versions": {"model": point.model_identity, "normalizer": point.rules.name, "scorer": SCORER},
        "protocol": protocol(settings),
        "transcripts": point.transcripts.fingerprint,
        "results": results,
        "fallbacks": {row["linear"]: row["notes"] for row in layers if row["notes"]},
        "measured": measured,
        "times": {name: stage.times(point) for name, stage in done.items()},
        "provenance": provenance,
        "settings": redact(settings.model_dump(mode="json", exclude={"sweep"})),  # says nothing of this point
    }


def protocol(settings: Settings) -> dict[str, Any]:
    """How the transcripts came about: the Open ASR leaderboard's way, and what the settings change of it."""
    told = settings.model.family == "whisper" and settings.model.language is not None
    return {
        "decoding": "greedy",
        "language": settings.model.language,
        "task": "transcribe" if told else None,  # English-only checkpoints have no such token
        "suppress_tokens": settings.evaluate.suppress_tokens,
        "reference_language": settings.dataset.language,
        "dropped_references": "empty after normalisation, or marked 'ignore time segment in scoring'",
    }


def save_record(record: dict[str, Any], output_dir: Path, job_dir: Path) -> Path:
    """Writes the record under its fingerprint, and into the job's own folder for the sweep's table.

    A record that is there already, undamaged, and holds the same results stays as it is: its provenance tells where
    they were computed, not where they were looked up. Both carry a digest of their content: see :mod:`src.checksum`.
    """
    path = output_dir / "records" / f"{record['fingerprint']}.json"
    record = with_checksum(json.loads(without_secrets(json.dumps(record))))  # of what will be written
    if not _holds(path, record):
        write_json(path, record)
    write_json(job_dir / RECORD, record)
    return path


def present(record: dict[str, Any], path: Path) -> None:
    """Shows a record that is not part of a sweep as tables, and says where it is stored."""
    if HydraConfig.get().mode is RunMode.RUN:
        console.show([record])
        console.show_measured([record])
    log.info("record: %s", path)


def _holds(path: Path, record: dict[str, Any]) -> bool:
    """Whether the file is whole, and has what the record says of its point and the runtimes that were timed for it."""
    try:
        held = read_checked(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        log.warning("the record %s cannot be trusted (%s): it is written again", path, error)
        return False
    timed = record["measured"].get("runtimes")
    same = timed is None or held["measured"].get("runtimes") == timed
    lasting = record.keys() - _CIRCUMSTANCES
    return same and _knows(held, record) and all(held.get(name) == record[name] for name in lasting)


def _knows(held: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether the record that is held has all results of another of its point; it may have more.

    What a figure rests on may be gone meanwhile; then it is None, or all of its stage's result is missing.
    """
    results = held["results"]
    return all(
        stage in results and all(figure is None or results[stage].get(name) == figure for name, figure in found.items())
        for stage, found in record["results"].items()
    )
