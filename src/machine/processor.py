"""The processor's name, without torch."""

from __future__ import annotations

import platform


def cpu_model() -> str:
    """Model name of the processor, as the system states it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a device file, not a path
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
