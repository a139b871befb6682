"""Where checkpoints are found, and what identifies them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from src.errors import UserError
from src.models.loading import load
from src.models.source import model_identity, resolve_source
from src.project import ROOT
from tests.tiny import WHISPER, model_settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_without(monkeypatch: pytest.MonkeyPatch, no_network: Path) -> Iterator[dict[str, str]]:
    """A hub that refuses every request with the error code put into the dictionary."""
    answer = {"code": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", answer["code"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield answer
    server.shutdown()
    server.server_close()


def _cache(folder: Path, hub: Path, commit: str = COMMIT) -> None:
    """Puts a checkpoint into the hub's cache as ``someone/tiny``, its newest revision."""
    repository = hub / "models--someone--tiny"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_folders_are_found_from_the_working_directory_then_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_source("src/models") == ROOT / "src/models"
    (tmp_path / "src" / "models").mkdir(parents=True)
    assert resolve_source("src/models") == tmp_path / "src/models"
    assert resolve_source("openai/whisper-tiny.en") is None


def test_without_a_network_the_remedy_is_a_local_copy(no_network: Path) -> None:
    with pytest.raises(UserError, match="the hub can not be reached") as caught:
        load(model_settings("someone/tiny", revision=COMMIT), "cpu", seed=0)
    assert f"hf download someone/tiny --revision {COMMIT} --local-dir DIR" in caught.value.remedy
    assert "model.source=DIR" in caught.value.remedy
    with pytest.raises(UserError, match="the hub can not be reached"):
        model_identity(model_settings("someone/tiny"))


def test_without_a_network_a_cached_checkpoint_loads(no_network: Path, whisper_folder: Path) -> None:
    _cache(whisper_folder, no_network)
    pinned, newest = model_settings("someone/tiny", revision=COMMIT), model_settings("someone/tiny")
    assert load(pinned, "cpu", seed=0).prompt == (90, 93)
    assert model_identity(newest) == model_identity(pinned)
    assert model_identity(newest)["revision"] == COMMIT
    assert load(newest, "cpu", seed=0).prompt == (90, 93)


def test_hub_without_the_model_or_the_revision(hub_without: dict[str, str]) -> None:
    hub_without["code"] = "RepoNotFound"
    with pytest.raises(UserError, match=r"model\.source: the hub has no public model"):
        load(model_settings("someone/tiny", revision=COMMIT), "cpu", seed=0)
    hub_without["code"] = "RevisionNotFound"
    with pytest.raises(UserError, match=r"model\.revision: 'someone/tiny' has no revision"):
        load(model_settings("someone/tiny", revision="v9"), "cpu", seed=0)


def test_identity_of_a_folder_is_its_content(copy: Path, whisper_folder: Path) -> None:
    original = model_identity(model_settings(whisper_folder))
    assert model_identity(model_settings(copy)) == original
    (copy / "README.md").write_text("notes")
    assert model_identity(model_settings(copy)) == original
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_identity(model_settings(copy)) != original


def test_identity_of_a_pinned_hub_model_asks_nobody(no_network: Path) -> None:
    identity = model_identity(model_settings("someone/tiny", revision=COMMIT, language="en"))
    assert identity == {"family": "whisper", "language": "en", "id": "someone/tiny", "revision": COMMIT}


def test_identity_of_random_weights_is_their_architecture() -> None:
    def identity(**changes: Any) -> dict[str, str]:
        return model_identity(model_settings("x/y", random_weights=True, architecture=WHISPER | changes))

    assert identity() == identity()
    assert identity() != identity(d_model=32)


def test_identity_needs_neither_torch_nor_transformers(whisper_folder: Path) -> None:
    program = (
        "import sys; from src.models.loading import model_identity; from src.settings import ModelSettings; "
        f"model_identity(ModelSettings.model_validate_json({model_settings(whisper_folder).model_dump_json()!r})); "
        "sys.exit(len({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
