"""Times one stage of one point in this process: ``python -m tests.benchmarks.timed_stage STAGE key=value ...``.

Prints one JSON line: seconds, processor seconds, peak memory in MiB of the process, and the folder of the result.
Importing torch and transformers is not timed; reading and writing the store is.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import transformers  # noqa: F401 - before the clock starts

from src.machine.process import prepare
from src.stages import ALL_STAGES
from src.stages.point import open_point
from tests.composed import composed


def main() -> None:
    """Runs the stage; see the module docstring."""
    name, *overrides = sys.argv[1:]
    settings = composed(*overrides)
    stage = next(each for each in ALL_STAGES if each.name == name)
    prepare(settings.device, settings.seed)
    point = open_point(settings)
    start, processor = time.perf_counter(), time.process_time()
    stage.run(point)
    figures = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "peak_mib": peak, "folder": str(stage.entry(point).path)}))


if __name__ == "__main__":
    main()
