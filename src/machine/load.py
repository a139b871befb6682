"""What other processes compute while something is timed: a figure taken beside them is not the machine's.

Counted is the processor time that the system gave to anything but this process and the children it waited for, over
the time it took: 1.0 is one processor kept busy. It tells what a load average, which lags by a minute and counts this
process too, does not, and whatever started the others: a launcher, another user, another job of the node. Work of
others on a GPU is not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_COUNTERS: Final = Path("/proc/stat")
_BUSY: Final = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal: see proc(5)
_GLANCE_SECONDS: Final = 0.2
_BLUR_SECONDS: Final = 0.05  # by which two kinds of counters may differ
_LEAST: Final = 0.25  # processors
_SHARE: Final = 0.1


class BusyError(Exception):
    """Others compute on this machine, or whether they do cannot be told; the message is the reason."""


@dataclass
class Load:
    """Processors that others kept busy, on average; None where the system does not tell, and until it is known."""

    others: float | None = None


def limit(threads: int) -> float:
    """The load beside which ``threads`` threads are timed: a quarter of a processor, or a tenth of those left idle."""
    return max(_LEAST, _SHARE * ((os.cpu_count() or 1) - threads))


def require_quiet(threads: int, most: float | None) -> None:
    """A glance, before anything is prepared for a measurement. ``most`` replaces :func:`limit`. Raises BusyError."""
    with alone(threads, most):
        time.sleep(_GLANCE_SECONDS)


@contextmanager
def alone(threads: int, most: float | None) -> Iterator[Load]:
    """Watches the block, and refuses what it measured where others were busier than ``most`` or :func:`limit`.

    Raises:
        BusyError: they were, or the system does not tell and no ``most`` is given.
    """
    with watched() as load:
        yield load
    allowed = limit(threads) if most is None else most
    if load.others is None:
        if most is None:
            raise BusyError("this system does not tell what else it computes")
    elif load.others > allowed:
        raise BusyError(
            f"other processes kept {load.others:.2f} of {os.cpu_count()} processors busy, and {allowed:.2f} may be"
        )


@contextmanager
def watched() -> Iterator[Load]:
    """The load of others beside the block, once it is over."""
    load, start, before, own = Load(), time.perf_counter(), _counters(), processor_seconds()
    yield load
    after, seconds = _counters(), time.perf_counter() - start
    if before is not None and after is not None and sum(after) > sum(before):  # counters that stand still tell nothing
        busy = sum(after[number] - before[number] for number in _BUSY) / os.sysconf("SC_CLK_TCK")
        load.others = round(max(busy - (processor_seconds() - own) - _BLUR_SECONDS, 0.0) / seconds, 3)


def _counters() -> list[int] | None:
    """Ticks that all processors of the machine spent, by kind, since it started."""
    try:
        return [int(ticks) for ticks in _COUNTERS.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None


def processor_seconds() -> float:
    """Of all threads of this process and of the children it waited for; what others compute moves it little."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
