"""Settings as the command line would compose them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.settings import ROOT, Settings, from_config


def composed(*overrides: str) -> Settings:
    """Checked settings of ``python -m src.main`` with the given overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", list(overrides))
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return from_config({str(key): value for key, value in plain.items()})
