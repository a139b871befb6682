"""The process that measures one runtime: ``python -m src.profiling.runtimes.worker ANSWER``, with a job on its input.

It imports the one runtime it measures, so that its peak memory is that runtime's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from src.machine.memory_peak import process_peak_mib
from src.profiling.reference import run_reference
from src.profiling.runtimes.job import Measurement, TimingJob, summarize


def measure(job: TimingJob) -> Measurement:
    """Loads the job's runtime and runs the reference utterance."""
    module = import_module(f"src.profiling.runtimes.{job.engine}_engine")
    engine, load_ms, device = module.open_engine(job)
    times = run_reference(engine, tokens=job.tokens, repeats=job.repeats)
    figures = summarize(times, job.seconds)
    return Measurement(
        load_ms=load_ms,
        **figures,
        peak_rss_mib=process_peak_mib(),
        threads=job.threads,
        device=device,
        version=module.VERSION,
    )


if __name__ == "__main__":
    answer = asdict(measure(TimingJob(**json.load(sys.stdin))))
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")
