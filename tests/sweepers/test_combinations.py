"""The sweeper that ours extends is private to Hydra."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

PRIVATE = "hydra._internal.core_plugins.basic_sweeper"
OURS = "src.sweepers.combinations"


def test_hydra_has_the_sweeper_and_what_ours_overrides() -> None:
    theirs = import_module(PRIVATE).BasicSweeper
    for hook in ("setup", "validate_batch_is_legal"):
        assert callable(getattr(theirs, hook))
        assert hook in vars(import_module(OURS).GridSweeper)
    assert theirs(max_batch_size=None).launcher is None


def test_without_it_the_plugin_is_told_to_be_of_another_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra warns with these words; single points still run, and a sweep ends at once."""
    monkeypatch.setitem(sys.modules, PRIVATE, None)
    monkeypatch.delitem(sys.modules, OURS, raising=False)
    with pytest.raises(ImportError, match=r"hydra\._internal\.core_plugins\.basic_sweeper"):
        import_module(OURS)
