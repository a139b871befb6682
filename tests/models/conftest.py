"""Checkpoint folders made of the tiny models, and a machine without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from src.models.source import resolve_revision
from tests.tiny.moonshine import moonshine_checkpoint
from tests.tiny.whisper import whisper_checkpoint


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whisper_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="session")
def moonshine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moonshine_checkpoint(tmp_path_factory.mktemp("moonshine"))


@pytest.fixture
def copy(whisper_folder: Path, tmp_path: Path) -> Path:
    """A copy of the Whisper checkpoint that a test may spoil."""
    return Path(shutil.copytree(whisper_folder, tmp_path / "checkpoint"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub nothing answers at, and an empty cache, whose path it is."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    resolve_revision.cache_clear()
    return tmp_path / "hub"
