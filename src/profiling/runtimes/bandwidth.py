"""Bytes a second between memory and the processor: ``python -m src.profiling.runtimes.bandwidth ANSWER``.

What a decode step does most is read weights, hence ``read``: dot products of two float32 arrays far larger than any
cache, one pair a thread. ``copy`` reads and writes, and counts both, as STREAM does. The best of several runs is what
the memory can give; the median would tell what else ran.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads are our own

import numpy as np

_ELEMENTS = 32 * 1024**2  # 128 MiB an array
_RUNS = 8


def measure(threads: int) -> dict[str, float | int | str]:
    """GB/s with ``threads`` threads: ``read`` and ``copy``, and how they were found."""
    pairs = [
        (np.ones(_ELEMENTS // threads, np.float32), np.ones(_ELEMENTS // threads, np.float32)) for _ in range(threads)
    ]
    moved = sum(a.nbytes + b.nbytes for a, b in pairs)
    with ThreadPoolExecutor(threads) as pool:

        def best(work: Callable[[tuple[np.ndarray, np.ndarray]], object]) -> float:
            rates = []
            for _ in range(_RUNS):
                start = time.perf_counter()
                list(pool.map(work, pairs))
                rates.append(moved / (time.perf_counter() - start) / 1e9)
            return max(rates)

        read, copy = best(lambda pair: np.dot(*pair)), best(lambda pair: np.copyto(*pair))
    how = f"best of {_RUNS} passes over {moved / 2**20:.0f} MiB of float32 with {threads} threads"
    return {"read_gbs": read, "copy_gbs": copy, "threads": threads, "how": how}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measure(int(sys.stdin.read()))), encoding="utf-8")
