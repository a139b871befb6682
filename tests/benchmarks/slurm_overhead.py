"""What a sweep costs beside its work: ``python -m tests.benchmarks.slurm_overhead [--nodes 4] [--slots 2]``.

100 points over the nodes of a SLURM cluster on this machine, each with so many slots; every point is one job. Prints
where the seconds of a job go, and checks that no result was made twice and that every stored entry is intact. The nodes
are virtual: with fewer processors than slots, jobs wait for each other, and every part takes longer by that factor.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from src.project import ROOT
from src.storage.store import Entry
from tests import commands
from tests.slurm.cluster import Cluster, wait_for

POINTS = (
    "method=rtn",
    "wbits=2,3,4,5,6",
    "group_size=-1,96,48,32,24",
    "symmetric=false,true",
    "dataset=sandbox_clean,sandbox_other",
    "dataset.limit=4",
    "calib.n=4",
    "evaluate.bootstrap_samples=100",
    "evaluate.probe_clips=0",
    "profile.repeats=1",
    "tracking=none",
)
JOBS = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
PARTS = ("start of Python", "settings", "imports and checks", "stages", "end")
ANNOUNCED = re.compile(r"(calibrate|quantize|evaluate|profile): (.*)")


def main() -> None:
    """Runs the sweep and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--slots", type=int, default=2, help="of each node")
    parser.add_argument("--output", type=Path, help="where results go and stay; else they are removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o711)
        output = (options.output or Path(folder) / "outputs").resolve()
        cluster = Cluster.start(Path(folder), options.nodes, options.slots)
        try:
            began = time.perf_counter()
            sweep = _sweep(cluster, output)
            seconds = time.perf_counter() - began
            wait_for("the last job's end", cluster.idle)
            spans = [_parts(cluster, log) for log in sorted(sweep.rglob("*_log.out"))]
        finally:
            cluster.stop()
        _print(spans, seconds, options.nodes * options.slots)
        _check(sweep, output)


def _sweep(cluster: Cluster, output: Path) -> Path:
    """Runs the sweep; returns its folder."""
    folder = output / "sweep"
    command = [sys.executable, "-m", "src.main", "-m", *JOBS, *POINTS]
    places = [f"output_dir={output}", f"hydra.sweep.dir={folder}"]
    subprocess.run([*command, *places], cwd=ROOT, env=commands.environment(**cluster.environment), check=True)
    return folder


def _parts(cluster: Cluster, log: Path) -> list[float]:
    """Seconds of each of the parts of a job, then when SLURM started and ended it."""
    job = log.name.removesuffix("_0_log.out")
    told = cluster.ask("scontrol", "--oneliner", "show", "job", job)
    start, end = (datetime.fromisoformat(re.findall(rf"\b{key}=(\S+)", told)[0]) for key in ("StartTime", "EndTime"))
    own = re.findall(r"\((\d{4}-\S+ \S+?)\)", log.read_text())
    woken = datetime.fromisoformat(own[0].replace(",", "."))
    folder = log.parents[2] / job.partition("_")[2]
    composed = datetime.fromtimestamp((folder / ".hydra" / "overrides.yaml").stat().st_mtime)
    lines = re.findall(r"^(\d{4}-\S+ \S+) ", (folder / "main.log").read_text(), flags=re.MULTILINE)
    first, last = (datetime.fromisoformat(line.replace(",", ".")) for line in (lines[0], lines[-1]))
    marks = (start, woken, composed, first, last, end)
    spans = [(b - a).total_seconds() for a, b in pairwise(marks)]
    return [*spans, start.timestamp(), end.timestamp()]


def _print(spans: list[list[float]], seconds: float, slots: int) -> None:
    jobs = len(spans)
    print(f"{jobs} points in {seconds:.0f} s on {slots} slots; this machine has {os.cpu_count()} processors")
    print("| seconds a point | mean | median | most |\n|---|---|---|---|")
    beside = [sum(span[: len(PARTS)]) - span[PARTS.index("stages")] for span in spans]
    columns = dict(zip(PARTS, zip(*spans, strict=True), strict=False)) | {"**all but stages**": beside}
    for name, values in columns.items():
        print(f"| {name} | {statistics.fmean(values):.2f} | {statistics.median(values):.2f} | {max(values):.2f} |")
    held = sum(span[-1] - span[-2] for span in spans)
    idle = (max(span[-1] for span in spans) - min(span[-2] for span in spans)) * slots - held
    print(f"| slot empty between jobs | {idle / jobs:.2f} | | |")


def _check(sweep: Path, output: Path) -> None:
    """As many results were begun as are stored, all are intact, and every point has its record."""
    logs = "\n".join(path.read_text() for path in sweep.glob("*/main.log"))
    announced = Counter(what for what, _ in ANNOUNCED.findall(logs))
    entries = list((output / "cache").glob("*/*/key.json"))
    damaged = [
        str(path.parent)
        for path in entries
        if not Entry(output / "cache", path.parts[-3], json.loads(path.read_text())).is_complete()
    ]
    made = Counter(path.parts[-3] for path in entries)
    left = list((output / "cache").rglob("*.partial"))
    print(f"records: {len(list((output / 'records').glob('*.json')))}; entries: {dict(sorted(made.items()))}")
    announced["transcripts"] = announced.pop("evaluate")  # a line for each model and test set that is transcribed
    twice = {what: count - made[what] for what, count in announced.items() if count != made[what]}
    print(f"made twice: {twice or 'none'}; damaged: {damaged or 'none'}; half made: {left or 'none'}")


if __name__ == "__main__":
    main()
