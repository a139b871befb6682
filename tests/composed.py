"""Settings as the command line would compose them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir

from src.settings import ROOT, Settings, from_hydra


def composed(*overrides: str) -> Settings:
    """Checked settings of ``python -m src.main`` with the given overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return from_hydra(compose("config", list(overrides)))
