"""What a stage is: a result that is built once, and how that result is logged."""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from src.errors import UserError
from src.machine.load import BusyError, processor_seconds
from src.machine.provenance import attempts, goes_on, stamped
from src.stages.point import Point
from src.storage.store import Entry, write_json
from src.tracking import Tracker

log = logging.getLogger(__name__)

RESULT = "result.json"
TIMES = "times.json"


class Stage(ABC):
    """One of calibrate, quantize, export, evaluate, profile, latency, measure."""

    name: ClassVar[str]
    bound: ClassVar[bool] = False  # whether its figures are of one machine; a point is finished without them

    @abstractmethod
    def entry(self, point: Point) -> Entry:
        """Where the stage's result is stored."""

    @abstractmethod
    def build(self, point: Point, folder: Path) -> dict[str, Any]:
        """Computes the result, writes its files into ``folder`` and returns the figures for :data:`RESULT`."""

    @abstractmethod
    def log(self, point: Point, tracker: Tracker) -> None:
        """Sends the stored result to the tracker."""

    def wanted(self, point: Point) -> bool:
        """Whether the point's settings ask for this stage."""
        return self.name in point.settings.stages

    def parts(self, point: Point) -> dict[str, Entry]:
        """All entries behind the stage's result, by name, its own last: what a record tells the provenance of."""
        return {self.name: self.entry(point)}

    def needs(self, point: Point) -> dict[str, Entry]:  # noqa: ARG002 - a hook that most stages leave empty
        """Entries of other stages that this one reads, by the name of the stage that makes them."""
        return {}

    def check(self, point: Point) -> None:  # noqa: B027 - a hook that some stages leave empty
        """Finds what would make :meth:`build` fail, before any stage runs. Raises UserError."""

    def check_data(self, point: Point) -> None:  # noqa: B027 - a hook that some stages leave empty
        """Finds what only reading the clips tells, once every stage's :meth:`check` has passed. Raises UserError."""

    def require(self, point: Point, made: Collection[str] = ()) -> None:
        """Checks that the entries this stage reads are there, or will be ``made`` by a stage of the same run.

        Raises:
            UserError: one is not.
        """
        for stage, needed in self.needs(point).items():
            if stage not in made and not needed.is_complete():
                problem = (
                    f"{self.name!r} reads what {stage!r} makes for {point.label}, which {needed.root} does not hold"
                )
                raise UserError("stages", problem, f"Add {stage} to stages, or set output_dir to where it was made")

    def is_done(self, point: Point) -> bool:
        """Whether the result is stored, so that :meth:`run` has nothing to build."""
        return self.entry(point).is_complete()

    def run(self, point: Point) -> None:
        """Builds the result unless it is stored already.

        A stage that measures goes without where the machine computes something else too; the log and the record say so.

        Raises:
            UserError: an entry the stage reads is not there.
        """
        if self.is_done(point):
            return
        self.require(point)
        try:
            obtain(self.entry(point), lambda folder: self.build(point, folder), point.settings.device)
        except BusyError as error:
            point.refused[self.name] = str(error)
            remedy = "run the point again when nothing else does, or set profile.max_load"
            log.warning("%s: nothing is measured, as %s; %s", self.name, error, remedy)

    def result(self, point: Point) -> dict[str, Any]:
        return read_json(self.entry(point).path / RESULT)

    def times(self, point: Point) -> dict[str, Any]:
        """How long the result took, in how many places it was worked on, and when it was finished."""
        return read_json(self.entry(point).path / TIMES)


@dataclass
class _Accounted:
    """Processor seconds of this process that are told of one result or another."""

    seconds: float = 0.0


_accounted: Final = _Accounted()


def obtain(entry: Entry, build: Callable[[Path], dict[str, Any]], device: str = "cpu", *, anew: bool = False) -> Path:
    """The entry's folder (:meth:`Entry.obtain`); ``build(folder)`` returns the figures stored beside its files.

    Beside them is also where they were made, on which ``device``, and when. ``seconds``, and those of all
    processors together, are of the run that finished the build. The latter leave out what was built meanwhile as a
    result of its own, and are not told where it went on from what another run had left; ``places`` above 1 says that
    it was elsewhere.
    """

    def write(folder: Path) -> None:
        part, start, before = goes_on(folder), time.perf_counter(), processor_seconds() - _accounted.seconds
        write_json(folder / RESULT, build(folder))
        own = processor_seconds() - _accounted.seconds - before
        _accounted.seconds += own
        times = {
            "seconds": round(time.perf_counter() - start, 3),
            "processor_seconds": None if part else round(own, 3),
            "places": len(attempts(folder)),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / TIMES, times)

    return entry.obtain(stamped(write, device), anew=anew)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
