"""Settings as the command line would compose them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from hydra import compose, initialize_config_dir

from src.project import ROOT
from src.settings import Settings
from src.settings.composite import from_hydra

SANDBOX: Final = "experiment=sandbox"


def composed(*overrides: str) -> Settings:
    """Checked settings of ``python -m src.main`` on the sandbox with the given overrides; the caller's own."""
    return _composed(*overrides).model_copy(deep=True)


@cache
def _composed(*overrides: str) -> Settings:
    """Composing takes a tenth of a second, and tests of one folder ask for the same again and again."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = from_hydra(compose("config", sandboxed(overrides)))
    assert isinstance(settings, Settings)
    return settings


def sandboxed(overrides: Iterable[object]) -> list[str]:
    """The overrides of a command that runs on the sandbox, unless they choose an experiment or only ask."""
    given = [str(each) for each in overrides]
    plain = any("experiment=" in each or each.startswith("--") for each in given)
    return given if plain else [*given, SANDBOX]


def composites() -> set[str]:
    """Choices of the group dataset that are made of others, and compose to several settings."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "conf" / "dataset").glob("*.yaml")}
    return {name for name, text in texts.items() if "\nmembers:" in text}
