"""Fixtures that tests of several folders share."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' models are too small to share among threads


@pytest.fixture(scope="session")
def composed_defaults() -> dict[str, Any]:
    """What the command line composes for the sandbox, as plain data."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from src.project import ROOT
    from tests.composed import SANDBOX

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("config", [SANDBOX]), resolve=True)
    return {str(key): value for key, value in plain.items()}


@pytest.fixture
def config(composed_defaults: dict[str, Any]) -> dict[str, Any]:
    """A copy of the defaults that a test may change."""
    return copy.deepcopy(composed_defaults)
