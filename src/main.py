"""Entry point: ``python -m src.main`` runs one point, ``-m`` a sweep; ``--help`` explains the groups.

Kept free of everything but the call: submitit pickles this module by value.
"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent.parent / "conf"), config_name="config")
def run(config: DictConfig) -> float | tuple[float | None, ...] | None:
    """Runs what was composed and returns its ``sweep.objectives`` (of several test sets the mean), for sweepers."""
    from src.machine.logs import route_libraries
    from src.runs.attempt import Attempt
    from src.settings.composite import from_hydra

    route_libraries()  # what a warning says while the rest is imported is for the job's log, too
    with Attempt(config):
        study = from_hydra(config)  # before anything else, as mistakes are
        from src.runs.run import run as run_study

        return run_study(study)


if __name__ == "__main__":
    from src.runs.cli import main

    main(run)
