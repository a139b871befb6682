"""One try at a point: it leaves a failure record however it ends, or none where it succeeds.

While it lasts, ``<output_dir>/failures/.running/`` holds its mark, which is the record it would leave, beside a lock
that the system releases when the process dies. So whoever looks later, on any node, can tell what died without a word.
A mark is none of a failure where the point came out after all: in another job, or before its own job could say so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.runs.failures import Failure, JobPaths, came_out, describe, know, names, point_of, save, succeed
from src.settings import Settings
from src.storage.checksum import RECORD
from src.storage.locks import Lock
from src.storage.store import fingerprint, write_atomic

log = logging.getLogger(__name__)

LOST: Final = "lost"  # kind of a failure of which only the end was seen
_KILLED: Final = Failure("it ended without a word: killed, out of memory, or its node lost", LOST)
_WAITS: Final = Failure("it was put back in the queue before it was done, and has not been started again", "waits")
_RESERVE: Final = 1 << 16  # bytes in a mark that are free for the record of the failure when the disk is full
_TAKEOVER_SECONDS: Final = 2.0  # a look at the mark (see settle) holds its lock for less


class Attempt:
    """To be used in a ``with`` statement around the point's work; exceptions pass."""

    def __init__(self, config: DictConfig) -> None:
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        self.job = JobPaths(Path(config.output_dir), folder, folder / f"{hydra.job.name}.log")
        overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # a reference stays one
        self._point = describe(config, overrides)
        self.names = names(config)
        self._stage: str | None = None
        self._waits = False  # to be started again by its scheduler
        self._seen = hydra.mode is RunMode.RUN  # whether a person reads a mistake where it was made
        self._mark = _mark(self.job)
        self._lock = Lock(self._mark.with_suffix(".lock"))

    def __enter__(self) -> Attempt:
        self._token = _current.set(self)
        with suppress(OSError, Timeout):  # a folder that cannot be written is what the point will fail of
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=_TAKEOVER_SECONDS)
            self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        if isinstance(error, SystemExit):  # put back in the queue: the mark tells, should it never start again
            self._waits = True
            self._write()
        else:
            with suppress(OSError):
                self._mark.unlink()
                self._lock.remove()
        if error is None:
            succeed(self.job, self.names, self._point["fingerprint"])
        elif isinstance(error, Exception) and not (self._seen and isinstance(error, UserError)):
            save(self._point, self.job, self._stage, Failure.of(error))
        self._lock.release()

    def update(self, stage: str | None, **known: Any) -> None:
        """Notes the stage that comes now, and what of the record is ``known`` by now."""
        self._stage = stage
        self._point = {**self._point, **known}
        self._write()

    def _write(self) -> None:
        job = {"output_dir": self.job.output_dir, "folder": self.job.folder, "log": self.job.log}
        places = {name: str(path.resolve()) for name, path in job.items()}
        text = json.dumps({"point": self._point, "stage": self._stage, "waits": self._waits, "job": places})
        with suppress(OSError):
            write_atomic(self._mark, text + " " * _RESERVE)


_current: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def identify(name: str, settings: Settings, provenance: Mapping[str, Any]) -> None:
    """Tells the attempt that is under way, if any, the fingerprint of its record and what checked settings tell."""
    if (attempt := _current.get()) is not None:
        know(attempt.job, attempt.names, name)
        attempt.update(None, fingerprint=name, bits=settings.bits_name, provenance=dict(provenance))


def enter(stage: str) -> None:
    """Tells the attempt that is under way, if any, which stage comes now."""
    if (attempt := _current.get()) is not None:
        attempt.update(stage)


def settle(output_dir: Path) -> None:
    """Makes failure records of the jobs that died without a word, whatever launched them: for who reads these records.

    A launcher tells of its own jobs as they end, and a job started again takes over the mark it left. So what no one
    reads yet may stay a mark: until its point came out, or failed in another way, which then is all there is to tell.
    """
    folder = output_dir / "failures" / ".running"
    for name in sorted({path.stem for suffix in ("json", "lock", "held") for path in folder.glob(f"*.{suffix}")}):
        mark = folder / f"{name}.json"
        lock = Lock(mark.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # it lives
        except OSError as error:
            log.warning("whether a job still runs cannot be told from %s: %s", mark, error)
            continue
        _take(mark)
        lock.remove()
        lock.release()


def lost(job: JobPaths, config: DictConfig, overrides: Sequence[str], failure: Failure) -> None:
    """Records that a job is gone, whether or not it had begun what ``config``, composed of ``overrides``, asks for."""
    if not _take(_mark(job), failure) and not (job.folder / RECORD).exists():
        save(describe(config, overrides), job, None, failure)


def ended_on_request(job: JobPaths) -> None:
    """Forgets a job that somebody stopped, also one that could not say so any more: it did not fail."""
    with suppress(OSError):
        _mark(job).unlink()


def _mark(job: JobPaths) -> Path:
    name = fingerprint({"job": str(job.folder.resolve())})
    return job.output_dir / "failures" / ".running" / f"{name}.json"


def _take(mark: Path, failure: Failure | None = None) -> bool:
    """Makes a mark into the record of a failure, unless its point came out; False where there is none to read.

    Without a ``failure`` the mark tells how it was.
    """
    try:
        begun = json.loads(mark.read_text(encoding="utf-8"))
        job = JobPaths(**{name: Path(path) for name, path in begun["job"].items()})
        point = {**begun["point"], "fingerprint": point_of(job, begun["point"]["fingerprint"])}
        since = mark.stat().st_mtime_ns
    except (OSError, ValueError, KeyError):
        return False
    with suppress(OSError):
        mark.unlink()
    if not came_out(point, job, since):
        save(point, job, begun["stage"], failure or (_WAITS if begun.get("waits") else _KILLED))
    return True
