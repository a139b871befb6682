"""Highest memory use of this process and of its GPU while something runs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MIB = 1024**2
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc(5), /proc/[pid]/clear_refs


@dataclass
class Peak:
    """Filled when the context of :func:`measure_peak` ends.

    Attributes:
        process_mib: peak resident set size in MiB: interpreter, libraries, model and working memory.
        device_mib: peak of the CUDA allocator in MiB; ``None`` on a CPU.
        since_start: False: ``process_mib`` covers the measured code only. True: the system cannot reset the
            counter, so it covers the life of the process, stages before this one included.
    """

    process_mib: float = 0.0
    device_mib: float | None = None
    since_start: bool = True


@contextmanager
def measure_peak(device: torch.device) -> Iterator[Peak]:
    """Measures the block's peak memory.

    Linux's own counter is reset first, because ``ru_maxrss`` never falls (and is inherited from a parent process), so
    that a sweep's later points would report the peak of its earlier ones. Elsewhere ``ru_maxrss`` is what there is.
    """
    peak = Peak(since_start=not _reset())
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    yield peak
    peak.process_mib = (_max_resident() if peak.since_start else _high_water()) / _MIB
    if device.type == "cuda":
        peak.device_mib = torch.cuda.max_memory_allocated(device) / _MIB


def process_peak_mib() -> float:
    """Peak resident set size of this process since it started, MiB."""
    counted = _STATUS.exists() and "VmHWM:" in _STATUS.read_text()
    return (_high_water() if counted else _max_resident()) / _MIB


def _reset() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return "VmHWM:" in _STATUS.read_text()


def _high_water() -> int:
    """``VmHWM`` of this process, bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _max_resident() -> int:
    """``ru_maxrss`` of this process, bytes; the system reports KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
