"""Ctrl-C, and the signals by which a terminal or a scheduler ends a process: one line, the work undone, no traceback.

Needs no other module: what ends a command must not wait for its imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

_ASKED: Final = 128  # what is added to the number of the signal that ended a process
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """Raised where the process is when a signal asks it to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def tell(interrupt: KeyboardInterrupt) -> NoReturn:
    """Ends the process with one line."""
    signal.signal(signal.SIGINT, _at_once)
    with suppress(OSError, ValueError):  # the terminal is gone
        print("Error: interrupted", file=sys.stderr, flush=True)
    leave(interrupt)


def obey_signals() -> None:
    """Turns the first signal that asks this process to end into :class:`Ended`; another one ends it at once.

    What is ignored stays so, as SIGHUP under ``nohup``.
    """

    def obey(number: int, _frame: FrameType | None) -> None:
        for each in _ENDING:
            if signal.getsignal(each) is obey:
                signal.signal(each, _at_once)
        raise Ended(number)

    for number in _ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, obey)


@contextmanager
def held() -> Iterator[None]:
    """Signals that ask this process to end wait for the end of the block: for imports of torch, which abort on them."""
    waiting, before = list[int](), {number: signal.getsignal(number) for number in _ENDING}

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            _at_once(number, frame)
        waiting.append(number)

    handled = [number for number, handler in before.items() if callable(handler)]
    if threading.current_thread() is not threading.main_thread():
        handled = []
    for number in handled:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
        if waiting:
            signal.raise_signal(waiting[0])


def _at_once(number: int, _frame: FrameType | None) -> NoReturn:
    """What a second signal does, wherever the process is."""
    with suppress(OSError):
        os.write(2, b"Error: interrupted again; left at once\n")
    os._exit(_ASKED + number)


def leave(interrupt: KeyboardInterrupt) -> NoReturn:
    """Ends the process: after Ctrl-C with exit code 130, after other signals by these."""
    import logging

    logging.disable()  # what libraries say at the end
    number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
    with suppress(Exception):  # private to Python: without it, libraries do not end their own work, and all else holds
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the terminal is gone
            stream.flush()
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(_ASKED + number)  # Python's own end takes a second, in which another Ctrl-C would kill it
