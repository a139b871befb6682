"""Records of points that failed: what was asked for, in which stage it ended, and why.

``<output_dir>/failures/<fingerprint>.json`` is there from a failure until the point succeeds. A point that dies without
a word (killed, out of memory, its node lost) cannot write one; the mark that its :class:`~src.runs.attempt.Attempt`
left is made into one by the launcher or, where that died too, by :func:`src.runs.attempt.settle`. A job that died
before it knew the fingerprint of its point left that of its settings; ``failures/.points/`` tells the one by the other.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import FULL, UserError
from src.records import read_whole
from src.settings import BIT_WIDTHS, FULL_PRECISION
from src.storage.checksum import RECORD
from src.storage.redaction import redact
from src.storage.store import fingerprint, write_atomic, write_json

log = logging.getLogger(__name__)

FAILURE: Final = "failure.json"  # in the job's own folder, for the sweep's table
_NOT_THE_POINT: Final = (  # settings that no fingerprint of a record depends on
    *("output_dir", "tracking", "experiment", "sweep", "stages", "device", "export", "evaluate.rescore"),
    *("profile.repeats", "profile.runtimes", "profile.threads", "profile.max_load"),
    *("profile.onnx", "profile.whisper_cpp"),
)
_NOT_AT_FULL_PRECISION: Final = (  # nor that of a point at full precision
    *(*BIT_WIDTHS, "group_size", "symmetric", "bias_correction", "scope", "activation", "cache", "calib"),
)


@dataclass(frozen=True)
class JobPaths:
    """Where one job of a sweep, or a single run, writes: results, its own files, its log."""

    output_dir: Path
    folder: Path
    log: Path

    def record(self, name: str) -> Path:
        """The failure record of the point with this fingerprint."""
        return self.output_dir / "failures" / f"{name}.json"

    def point(self, name: str) -> Path:
        """Holds the fingerprint of the point that settings of this name ask for (see :func:`names`), once known."""
        return self.output_dir / "failures" / ".points" / name


def describe(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What a failure record says of the point that a configuration asks for, also where the settings are mistaken.

    Its ``fingerprint`` is of the settings, until the point's own is known.
    """
    plain = _plain(config)
    return {
        "fingerprint": _named(plain),
        **{group: _name(plain.get(group)) for group in ("model", "method")},
        "bits": _bits(plain),
        **{width: plain.get(width) for width in BIT_WIDTHS},
        "group_size": plain.get("group_size"),
        "dataset": _name(plain.get("dataset")),
        "seed": plain.get("seed"),
        "settings": redact(plain),
        "provenance": {},
        "overrides": redact({"all": list(overrides)})["all"],
    }


def names(config: DictConfig) -> set[str]:
    """Under which a failure of this configuration may be recorded before its point is known.

    One is of the settings without their references to the environment resolved: they could not be where such a variable
    was not set.
    """
    return {_named(_plain(config)), _named(_plain(config, resolve=False))}


@dataclass(frozen=True)
class Failure:
    """How a point failed.

    Attributes:
        reason: one line.
        kind: name of the exception, or how the process was ended: ``killed: signal 9``, ``lost``, or a state of SLURM.
        trace: the traceback, where there is one.
    """

    reason: str
    kind: str
    trace: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """A user's mistake is told by its sentence, anything else by its name and message."""
        kind, text = type(error).__name__, " ".join(str(error).split())
        reason = text if isinstance(error, UserError) else f"{kind}: {text}".rstrip(": ")
        return cls(reason, kind, "".join(traceback.format_exception(error)))


def save(point: Mapping[str, Any], job: JobPaths, stage: str | None, failure: Failure) -> None:
    """Writes the record of a failure of ``point`` (see :func:`describe`), and a copy into the job's folder.

    What cannot be written is logged: it must not hide the failure itself.
    """
    told = {
        "stage": stage,
        "reason": failure.reason,
        "kind": failure.kind,
        "traceback": failure.trace,
        "log": _below(job.log, job.output_dir),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for path in (job.record(point["fingerprint"]), job.folder / FAILURE):
        try:
            write_json(path, {**point, "failure": redact(told)})
        except OSError as problem:
            level = logging.DEBUG if problem.errno in FULL else logging.WARNING  # a full disk is the failure itself
            log.log(level, "the failure could not be recorded in %s: %s", path, problem)


def succeed(job: JobPaths, names: Iterable[str], point: str) -> None:
    """Removes the records of earlier failures of a ``point`` that succeeded, whose settings have these ``names``."""
    for path in (*map(job.record, (*names, point)), job.folder / FAILURE):
        with suppress(OSError):
            path.unlink()


def know(job: JobPaths, names: Iterable[str], point: str) -> None:
    """Notes which ``point`` settings of these ``names`` ask for, for jobs that die before they know."""
    with suppress(OSError):
        for name in names:
            if point_of(job, name) != point:
                write_atomic(job.point(name), point)


def came_out(point: Mapping[str, Any], job: JobPaths, since: int) -> bool:
    """Whether a point (see :func:`describe`) whose job died has its results all the same, or failed again since then.

    Its own job wrote the record after the time ``since`` (nanoseconds), or there is one of all its stages. A failure
    after that time says itself why, and is the one to be told.
    """
    for path in (job.folder / RECORD, job.record(point["fingerprint"])):
        with suppress(OSError):
            if path.stat().st_mtime_ns >= since:
                return True
    try:
        record = read_whole(job.output_dir / "records" / f"{point['fingerprint']}.json")
        return record.results.stages.issuperset(point["settings"]["stages"])
    except (ValueError, KeyError, TypeError):
        return False


def point_of(job: JobPaths, name: str) -> str:
    """The fingerprint of the point that settings of this name ask for, where it is known; else the name."""
    with suppress(OSError, ValueError):
        return job.point(name).read_text(encoding="utf-8")
    return name


def _below(path: Path, folder: Path) -> str | None:
    """``path`` relative to ``folder``; None where it is not there or lies elsewhere."""
    with suppress(ValueError, OSError):
        return str(path.resolve(strict=True).relative_to(folder.resolve()))
    return None


def _named(plain: Mapping[str, Any]) -> str:
    point = json.loads(json.dumps(plain, default=str))
    full = _name(plain.get("method")) == "fp"
    for key in (*_NOT_THE_POINT, *(_NOT_AT_FULL_PRECISION if full else ())):
        group, _, name = key.rpartition(".")
        holder = point.get(group) if group else point
        if isinstance(holder, dict):
            holder.pop(name, None)
    return fingerprint(point)


def _plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    try:
        plain: Any = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException:
        plain = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _name(group: Any) -> str | None:
    return str(group["name"]) if isinstance(group, Mapping) and "name" in group else None


def _bits(plain: Mapping[str, Any]) -> str:
    """The widths as they are asked for; :attr:`src.settings.Settings.bits_name` of settings that are not checked."""
    kv = plain.get("kvbits")
    return f"w{plain.get('wbits')}a{plain.get('abits')}" + ("" if kv in (FULL_PRECISION, None) else f"kv{kv}")
