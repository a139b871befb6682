"""A sweep as processes of this machine: so many at a time, and one that is killed is one failure among the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests import commands

POINTS, AT_A_TIME = 4, 2


def tasks(folder: Path) -> set[int]:
    """Process ids of the sweep's jobs; what controls a job names the same folder but is another module."""
    found = dict[int, int]()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            told = (each / "cmdline").read_bytes().decode().split("\0")
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if "submitit.core._submit" in told and any(part.startswith(str(folder)) for part in told):
            found[int(each.name)] = parent
    return {process for process, parent in found.items() if parent not in found}  # a fork has its parent's command


def test_so_many_run_at_a_time_and_the_others_outlive_one_that_is_killed(tmp_path: Path) -> None:
    chosen = ["method=rtn", "wbits=8,4,3,2", "stages=[quantize]", "tracking=none", f"output_dir={tmp_path}/out"]
    how = [
        "hydra/launcher=parallel",
        f"hydra.launcher.array_parallelism={AT_A_TIME}",
        f"hydra.sweep.dir={tmp_path}/jobs",
    ]
    sweep = commands.start("src.main", "-m", *chosen, *how, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, most = set[int](), 0
    while sweep.poll() is None:
        running = tasks(tmp_path / "jobs")
        most = max(most, len(running))
        if not seen and running:
            os.kill(min(running), signal.SIGKILL)
        seen |= running
        time.sleep(0.02)
    assert sweep.stdout is not None
    told = sweep.stdout.read()
    assert sweep.returncode == 1, told
    assert most == AT_A_TIME
    assert len(seen) == POINTS
    assert len(list((tmp_path / "out/records").glob("*.json"))) == POINTS - 1
    [failure] = (tmp_path / "out/failures").glob("*.json")
    assert "it ended without a result" in json.loads(failure.read_text())["failure"]["reason"]
    assert "it ended without a result" in told
    assert "Traceback" not in told


def test_no_processes_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    chosen = ["-m", "method=rtn", "hydra/launcher=parallel", "hydra.launcher.array_parallelism=0"]
    told = commands.run("src.main", *chosen, f"output_dir={tmp_path}")
    assert told.returncode == 1
    assert "Error: hydra.launcher.array_parallelism: 0 is no number of processes. Use 1 or more, e.g. 2." in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "records").exists()
