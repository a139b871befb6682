"""How far long loops are: a bar each on a terminal; elsewhere, at most one line a minute in the log.

Loops may be inside each other, a block's learning inside the blocks: a line tells of all of them, the outermost first.
What is over in a minute says nothing. Nothing runs beside the loop, so that measurements may be made in one.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

LINE_SECONDS: Final = 60.0  # between two lines
_BAR_SECONDS: Final = 0.1  # between two looks of a bar
_SHORT: Final = 1.0  # seconds after which a loop gets a bar
_UNITS: Final = (("second", 1.0), ("minute", 60.0), ("hour", 3600.0))


@dataclass(eq=False)
class Loop:
    """A loop that runs.

    Attributes:
        label: what it is called.
        total: number of items.
        before: how many of them were done when it started.
        start: when that was.
        done: how many are done now.
        last: when the last of these was.
    """

    label: str
    total: float
    before: float
    start: float
    done: float
    last: float

    def told(self, now: float) -> str:
        """How far it is, how fast, and how long it will take: ``120 / 820, 3.1 a minute, 3 h 46 min left``.

        The item that it is at began when the last was done, and takes as long as those before.
        """
        count, elapsed = self.done - self.before, self.last - self.start
        if not count or elapsed <= 0:
            return f"{self.done:.0f} / {self.total:.0f}"
        left = max(0.0, (self.total - self.done) * elapsed / count - (now - self.last))
        return f"{self.done:.0f} / {self.total:.0f}, {_rate(count / elapsed)}, {duration(left)} left"


def _rate(per_second: float) -> str:
    """In the smallest unit of time in which there is at least one."""
    unit, seconds = next((each for each in _UNITS if per_second * each[1] >= 1), _UNITS[-1])
    return f"{per_second * seconds:.3g} {'an' if unit == 'hour' else 'a'} {unit}"


def duration(seconds: float) -> str:
    """In words: ``40 s``, ``12 min``, ``3 h 46 min``."""
    minutes = round(seconds / 60)
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Lines:
    """Lines, the first no sooner than :data:`LINE_SECONDS` after ``start``."""

    def __init__(self, start: float, say: Callable[[str], None]) -> None:
        self._last, self._say = start, say

    def show(self, loops: Sequence[Loop], now: float) -> None:
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self._say("; ".join(f"{loop.label}: {loop.told(now)}" for loop in loops))

    def close(self, loop: Loop) -> None:
        """Nothing to do."""


class Bars:
    """Bars below each other, drawn as items get done; they go with their loops."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[told]}")
        console = console or Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._tasks: dict[Loop, Any] = {}
        self._last = 0.0

    def show(self, loops: Sequence[Loop], now: float) -> None:
        """Draws the bars anew, unless they were just before."""
        if now - self._last < _BAR_SECONDS:
            return
        self._last = now
        for loop in loops:
            if now - loop.start >= _SHORT:
                if loop not in self._tasks:
                    self._progress.start()
                    self._tasks[loop] = self._progress.add_task(loop.label, total=loop.total, told="")
                self._progress.update(self._tasks[loop], completed=loop.done, told=loop.told(now))
        if self._tasks:
            self._progress.refresh()

    def close(self, loop: Loop) -> None:
        if loop in self._tasks:
            self._progress.remove_task(self._tasks.pop(loop))
            if not self._tasks:
                self._progress.stop()


class Reporter:
    """Shows the loops of one process.

    Args:
        clock: seconds that pass.
        display: makes what shows loops that start now, from the time.
    """

    def __init__(self, clock: Callable[[], float], display: Callable[[float], Lines | Bars]) -> None:
        self._clock = clock
        self._make = display
        self._display: Lines | Bars
        self._loops: list[Loop] = []

    def loop(self, items: Sequence[T], label: str, *, before: int = 0) -> Iterator[T]:
        """``items`` one by one, after ``before`` more that an earlier run did."""
        with self.work(label, before + len(items), before=before) as done:
            for item in items:
                yield item
                done(1)

    @contextmanager
    def work(self, label: str, total: float, *, before: float = 0) -> Iterator[Callable[[float], None]]:
        """Work that is no loop over a sequence; inside, it is told how much more of ``total`` is done."""
        start = self._clock()
        loop = Loop(label, total, before, start, before, start)
        if not self._loops:
            self._display = self._make(start)
        display = self._display
        self._loops.append(loop)

        def done(more: float) -> None:
            loop.done, loop.last = loop.done + more, self._clock()
            display.show(self._loops, loop.last)

        try:
            yield done
        finally:
            self._loops.remove(loop)
            display.close(loop)


def _say(text: str) -> None:
    """Into the job's log; of a command that has none, on the error stream."""
    if log.hasHandlers():
        log.info("%s", text)
    else:
        print(text, file=sys.stderr, flush=True)


def _display(now: float) -> Lines | Bars:
    return Bars() if sys.stderr.isatty() else Lines(now, _say)


_REPORTER = Reporter(time.monotonic, _display)
progress, working = _REPORTER.loop, _REPORTER.work
