"""A race whose rounds are arrays of a real SLURM cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import commands
from tests.slurm.cluster import JOBS, absent, running
from tests.sweepers.racing import BUDGET, arguments, lasting

pytestmark = [
    pytest.mark.skipif(absent() is not None, reason=str(absent())),
    pytest.mark.timeout(900),  # a machine with much else to do
]

LESS = ("wbits=2,4", BUDGET)


def table(told: str) -> list[str]:
    """How the candidates fared, and what stands below."""
    lines = told.splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("candidate")) :]


def test_a_race_on_a_cluster_ends_as_one_in_a_single_process(tmp_path: Path) -> None:
    with running(nodes=2) as cluster:
        command = arguments(tmp_path / "cluster", *JOBS, *LESS)
        away = commands.run("src.main", *command, **cluster.environment)
        arrays = {job.partition("_")[0] for job in cluster.jobs()}
    assert away.returncode == 0, away.stderr
    assert len(arrays) == 3, "one for the sizes, and one for each round"
    here = commands.run("src.main", *arguments(tmp_path / "here", *LESS))
    assert here.returncode == 0, here.stderr
    assert table(away.stdout) == table(here.stdout)
    assert lasting(tmp_path / "cluster") == lasting(tmp_path / "here")
