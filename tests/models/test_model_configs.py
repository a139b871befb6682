"""Every model of conf/model builds with its published size and the structure its family declares.

The size stands at the head of its yaml: parameters of the published safetensors file.
"""

from __future__ import annotations

import re

import pytest
import torch

from src.embedded.shrink import named_model
from src.models.families import family_of
from src.models.loading import load, load_config, load_graph
from src.project import ROOT
from src.settings import ModelSettings

CONF = ROOT / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
PACKAGED = [name for name in NAMES if name.endswith("_package")]
SHIPPED = [name for name in NAMES if name.startswith(("sandbox_", "embedded_"))]
PUBLISHED = [name for name in NAMES if name not in (*SHIPPED, *PACKAGED)]


def _settings(name: str, *, random_weights: bool = False) -> ModelSettings:
    return named_model(name).model_copy(update={"random_weights": random_weights})


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_file_name(name: str) -> None:
    assert _settings(name).name == name


@pytest.mark.parametrize("name", PUBLISHED)
def test_revision_is_a_commit(name: str) -> None:
    assert re.fullmatch("[0-9a-f]{40}", _settings(name).revision or "")


@pytest.mark.parametrize("name", PACKAGED)
def test_every_file_of_a_package_has_its_digest(name: str) -> None:
    settings = _settings(name)
    assert settings.sha256
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in settings.sha256.values())
    assert settings.architecture == _settings(name.removesuffix("_package")).architecture


@pytest.mark.parametrize("name", PUBLISHED)
def test_model_has_the_published_size_and_the_declared_structure(name: str) -> None:
    settings = _settings(name, random_weights=True)
    load_graph(settings)
    with torch.device("meta"):
        module = family_of(settings.family).module.from_config(load_config(settings))
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    told = (CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.match(rf"# {millions:.1f} M parameters[:;,.]", told), millions


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("whisper_tiny", 37_760_640), ("moonshine_tiny", 27_092_736), ("moonshine_streaming_tiny", 33_568_961)],
)
def test_true_shape_loads_with_random_weights(name: str, parameters: int) -> None:
    speech = load(_settings(name, random_weights=True), "cpu", seed=0)
    assert sum(parameter.numel() for parameter in speech.module.parameters()) == parameters


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_is_there_and_loads(name: str) -> None:
    settings = _settings(name)
    assert (ROOT / settings.source / "model.safetensors").stat().st_size < 40_000_000
    speech = load(settings, "cpu", seed=0)
    assert speech.text([speech.eos]) == ""
