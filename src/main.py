"""Entry point: ``python -m src.main`` runs one point, ``-m`` a sweep; ``--help`` explains the groups.

Kept free of everything but the call: submitit pickles this module by value.
"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent.parent / "conf"), config_name="config")
def run(config: DictConfig) -> float | None:
    """Runs the composed point and returns its WER in percent, for sweepers that optimise."""
    from src.settings import from_hydra

    settings = from_hydra(config)  # before the imports that take seconds
    from src.pipeline import run as run_point

    return run_point(settings)


if __name__ == "__main__":
    from src.cli import main

    main(run)
