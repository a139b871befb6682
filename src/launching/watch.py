"""Ends a sweep's processes when the process that launched them is gone, however it went; started by the parallel launcher.

Reads lines from its standard input: ``+N`` and ``-N`` for a process group that began and one that is over. At the end
of the input, which the system brings about when the launcher dies, it asks what is left to end, and then makes it.
Runs as a script and needs nothing but Python.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import Final

GRACE_SECONDS: Final = 10.0  # to finish a batch's line and the tracker's log
_POLL_SECONDS: Final = 0.1


def main() -> None:
    """Follows the launcher, then ends its groups."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = set[int]()
    for line in sys.stdin:
        group = int(line[1:])
        groups = groups | {group} if line.startswith("+") else groups - {group}
    for group in groups:
        with suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)  # what controls a job passes it on
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(_lives, groups)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for group in filter(_lives, groups):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
