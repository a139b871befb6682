"""How long the main job takes, cold and cached, and how much memory: ``python tests/benchmarks/main_job.py``.

Runs the real command line in an empty folder: one point, then the README's sweep of four, each twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ("-m", "method=rtn,gptq", "wbits=3,4")


def timed(output: str, *overrides: str) -> tuple[float, float]:
    """Wall-clock seconds and peak resident memory in GiB of one process."""
    command = [sys.executable, "-m", "src.main", *overrides, f"output_dir={output}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024**2


def main() -> None:
    """Prints one row per job: cold and cached seconds, peak memory."""
    table = Table("job", "from empty, s", "cached, s", "peak memory, GiB")
    for name, overrides in (("python -m src.main", ()), (f"python -m src.main {' '.join(SWEEP)}", SWEEP)):
        with tempfile.TemporaryDirectory() as output:
            cold, memory = timed(output, *overrides)
            cached, _ = timed(output, *overrides)
        table.add_row(name, f"{cold:.1f}", f"{cached:.1f}", f"{memory:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
