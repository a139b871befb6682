"""What a tracker's run was told, so that it is told once: marks in the cache, set when the run is finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from src.settings import TrackingSettings
from src.storage.store import Entry, Store
from src.tracking import RunInfo, Tracker, open_tracker

log = logging.getLogger(__name__)


@dataclass
class Telling:
    """A tracker's run, and the marks of what it is told."""

    tracker: Tracker
    marks: list[Entry] = field(default_factory=list)

    def once(self, mark: Entry | None, what: str, action: Callable[[Tracker], None]) -> None:
        """Logs a stored result unless the run has it already, so that a cached point costs no tracker start.

        Nothing that goes wrong here fails the job; what could not be logged is tried again when the point runs again.
        """
        if mark is None or mark.is_complete():
            return
        try:
            action(self.tracker)
        except Exception as error:
            log.warning("could not prepare what %s logs (%s: %s); the job goes on", what, type(error).__name__, error)
        else:
            self.marks.append(mark)


@contextmanager
def telling(tracking: TrackingSettings, info: RunInfo) -> Iterator[Telling]:
    """A tracker's run, whose marks are set once it is finished: what it was told is on disk, or uploaded, only then."""
    with ExitStack() as after:
        tracker = open_tracker(tracking, info)
        told = Telling(tracker)
        after.callback(_set_marks, told)
        with tracker:
            yield told


def _set_marks(told: Telling) -> None:
    try:
        for mark in () if told.tracker.failed else told.marks:
            mark.obtain(lambda _: None)
    except OSError as error:
        log.warning("what was logged could not be noted (%s); it is logged again when the point is run again", error)


def mark_of(store: Store, tracking: TrackingSettings, run: str, what: Mapping[str, str]) -> Entry | None:
    """The mark that a run has been told of ``what``; None where nothing is tracked."""
    if tracking.mode == "none":
        return None
    return store.entry("tracked", {"run": run, **what, **tracking.model_dump(exclude={"group"})})


def group_of(tracking: TrackingSettings, sweep: Path | None) -> str | None:
    """The group of a run: the one that was chosen, or that of the sweep in this folder."""
    return tracking.group or (f"{sweep.parent.name}_{sweep.name}" if sweep else None)
