"""Every yaml in conf composes, passes the checks, and is what its name says; a new one takes part by being there."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from src.methods.build import build_method
from src.project import ROOT
from src.settings import ModelSettings, Settings, from_config
from tests.composed import SANDBOX, composed, composites

CONF = ROOT / "conf"
GROUPS = ("model", "method", "bits", "scope", "dataset", "calib", "edge_device", "export", "tracking", "experiment")
POINTS = GROUPS[:-1]  # what saved sweeps compose to is tested with them
NAMED = ("model", "method", "dataset", "edge_device")  # groups whose choice is written into records


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def raw(*overrides: str) -> DictConfig:
    """The composition with Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def test_every_folder_of_conf_is_checked_here() -> None:
    folders = {path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()}
    assert folders == {*GROUPS, "dataset/parts", "hydra", "hydra/launcher", "hydra/sweeper"}


@pytest.mark.parametrize("group", [*GROUPS, "hydra/launcher", "hydra/sweeper"])
def test_a_group_has_choices(group: str) -> None:
    assert choices(group)


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in POINTS for name in choices(group) if group != "dataset" or name not in composites()],
)
def test_a_choice_composes_and_passes_the_checks(group: str, name: str) -> None:
    settings = composed(f"{group}={name}")
    if group in NAMED:
        part = getattr(settings, group)
        assert (part["name"] if isinstance(part, dict) else part.name) == name


@pytest.mark.parametrize("name", choices("model"))
def test_a_model_says_all_that_another_starts_from(name: str) -> None:
    """Nothing of the default model is left in another one's settings."""
    alone = OmegaConf.to_container(raw(f"model={name}").model, resolve=True)
    assert composed(f"model={name}").model == ModelSettings.model_validate(alone)
    assert set(alone) >= {key for key, field in ModelSettings.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("name", choices("method"))
def test_a_method_builds(name: str) -> None:
    assert build_method(composed(f"method={name}").method).name == name


@pytest.mark.parametrize("name", choices("bits"))
def test_a_bit_config_has_the_numbers_of_its_name(name: str) -> None:
    settings = composed(f"bits={name}")
    found = re.fullmatch(r"w(\d+)a(\d+)(?:kv(\d+))?", name)
    assert found is not None
    weights, activations, cache = (int(bits or 16) for bits in found.groups())
    assert (settings.wbits, settings.abits, settings.kvbits) == (weights, activations, cache)
    assert settings.bits_name == name


def test_a_single_bit_width_is_set_after_the_bit_config() -> None:
    settings = composed("wbits=3", "bits=w4a4kv4", "abits=6")
    assert (settings.wbits, settings.abits, settings.kvbits) == (3, 6, 4)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("blocks", "w4a8"),
        ("encoder", "w4a8-encoder"),
        ("decoder", "w4a8-decoder"),
        ("cross_attention", "w4a8-cross_attention"),
        ("frontend", "w16a16f4"),
        ("head", "w16a16h4"),
        ("everything", "w4a8h4f4"),
    ],
)
def test_a_scope_is_told_in_the_name_of_the_bits(name: str, bits: str) -> None:
    assert composed(f"scope={name}", "bits=w4a8").bits_name == bits
    assert name in choices("scope")


def test_a_scope_may_be_changed_key_by_key() -> None:
    assert composed("scope.cross_attention=false").bits_name == "w4a16-encoder-decoder"
    assert composed("scope=head", "head_bits=8").bits_name == "w16a16h8"
    assert composed("scope=everything", "wbits=3", "frontend_bits=16", "group_size=32").bits_name == "w3a16h3g32"


@pytest.mark.parametrize("end", ["head", "frontend"])
def test_an_end_alone_is_the_same_point_however_it_is_asked_for(end: str) -> None:
    assert composed(f"scope={end}", "bits=w4a8") == composed("bits=w16a16", f"{end}_bits=4")


@pytest.mark.parametrize("name", sorted(set(choices("dataset")) - composites()))
def test_a_dataset_serves_for_calibration_too(name: str) -> None:
    assert composed(f"dataset@calib.dataset={name}").calib.dataset == composed(f"dataset={name}").dataset


@pytest.mark.parametrize("kind", ["launcher", "sweeper"])
def test_launchers_and_sweepers_are_installed_with_the_keys_they_know(kind: str) -> None:
    for name in choices(f"hydra/{kind}"):
        chosen = raw(f"hydra/{kind}={name}").hydra[kind]
        signature(get_class(chosen._target_)).bind(**dict.fromkeys(set(chosen) - {"_target_"}))


def test_no_setting_is_hidden_from_the_command_line() -> None:
    """Every field of the settings is composed, so `--cfg job` shows every value a run depends on."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", [SANDBOX]), resolve=True)  # calib.seed is the seed
    assert isinstance(config, dict)
    assert set(config) - {"experiment"} == set(Settings.model_fields)
    plain = {str(key): value for key, value in config.items()}
    assert from_config(plain) == composed()


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_a_yaml_begins_by_saying_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(" # " in line or re.match(r"# (?!@package)", line) for line in lines[:2]), lines[:2]
