"""Every mistake in the settings is told as field, value and remedy, before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from src.errors import UserError
from src.machine.process import prepare
from src.project import ROOT
from src.settings import STAGES, from_config

Config = dict[str, Any]
# They become parts of paths, and of lines on a terminal.
NO_NAMES = ("../x", "a/b", "a\\b", "..", ".hidden", "-m", "", "x" * 101, "a\nb", "\x1b[31mred")


def set_at(config: Config, path: str, value: object) -> Config:
    """The configuration with ``value`` at a dotted path."""
    *parents, name = path.split(".")
    level = config
    for parent in parents:
        level = level[parent]
    level[name] = value
    return config


def refused(config: Config) -> UserError:
    with pytest.raises(UserError) as caught:
        from_config(config)
    return caught.value


@pytest.mark.parametrize("field", ["wbits", "abits", "kvbits", "head_bits", "frontend_bits"])
@pytest.mark.parametrize("bits", [1, 9, 0, -4, 15, 17, "x", 4.5, True, None])
def test_bit_widths_out_of_range(config: Config, field: str, bits: object) -> None:
    error = refused(set_at(config, field, bits))
    assert error.field == field
    assert repr(bits) in error.problem
    assert "2, 3, 4, 5, 6, 7, 8, or 16" in error.remedy


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_method_has_a_name_that_can_be_a_files(config: Config, name: str) -> None:
    error = refused(set_at(config, "method.name", name))
    assert error.field == "method"
    assert error.problem.startswith(f"{name!r} is not valid (names ")


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
def test_bit_widths_in_range(config: Config, bits: int) -> None:
    assert from_config(set_at(config, "wbits", bits)).wbits == bits


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("calib.n", 0, "greater than or equal to 1"),
        ("calib.n", True, "valid integer"),
        ("calib.batch_size", 0, "greater than or equal to 1"),
        ("calib.propagate", "both", "'quantized' or 'fp'"),
        ("evaluate.batch_size", -1, "greater than or equal to 1"),
        ("evaluate.bootstrap_samples", 10, "greater than or equal to 100"),
        ("evaluate.suppress_tokens", "maybe", "boolean"),
        *((f"{group}.name", name, "names ") for group in ("model", "dataset") for name in NO_NAMES),
        ("profile.seconds", 0, "greater than 0"),
        ("profile.beams", 0, "greater than or equal to 1"),
        ("edge_device.bandwidth_gb_s", -1, "greater than 0"),
        ("dataset.limit", 0, "greater than or equal to 1"),
        ("model.source", None, "string"),
        ("tracking.mode", "loud", "'offline', 'online' or 'none'"),
        ("scope.encoder", 7, "boolean"),
        ("symmetric", "no idea", "boolean"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**63, "less than"),
        ("output_dir", None, "string"),
        ("device", 3, "string"),
    ],
)
def test_values_out_of_range(config: Config, path: str, value: object, told: str) -> None:
    error = refused(set_at(config, path, value))
    assert error.field == path
    assert repr(value) in error.problem
    assert told in error.problem
    assert error.remedy


@pytest.mark.parametrize("size", [0, -2, "x", 2.5, True])
def test_group_sizes_out_of_range(config: Config, size: object) -> None:
    error = refused(set_at(config, "group_size", size))
    assert error.field == "group_size"
    assert repr(size) in error.problem
    assert "group_size=-1" in error.remedy


def test_an_unknown_stage_is_told_with_the_one_that_was_meant(config: Config) -> None:
    error = refused(set_at(config, "stages", ["calibrate", "evalute"]))
    assert error.field == "stages"
    assert "'evalute'" in error.problem
    assert "Did you mean 'evaluate'?" in error.remedy
    assert all(stage in error.remedy for stage in STAGES)


def test_stages_are_a_list(config: Config) -> None:
    error = refused(set_at(config, "stages", "evaluate"))
    assert error.field == "stages"
    assert "stages=[evaluate,profile]" in error.remedy
    assert "Did you mean" not in error.remedy


def test_a_stage_named_twice_is_harmless(config: Config) -> None:
    assert set(from_config(set_at(config, "stages", ["profile", "profile"])).stages) == {"profile"}


@pytest.mark.parametrize("path", ["wbit", "model.sorce", "calib.dataset.size"])
def test_unknown_settings(config: Config, path: str) -> None:
    error = refused(set_at(config, path, 4))
    assert error.field == path
    assert "no such setting" in error.problem
    assert "--cfg job" in error.remedy


@pytest.mark.parametrize("path", ["wbits", "model.source", "calib.n", "method"])
def test_missing_settings(config: Config, path: str) -> None:
    *parents, name = path.split(".")
    del (config[parents[0]] if parents else config)[name]
    error = refused(config)
    assert error.field == path
    assert error.problem == "no value is set"
    assert f"{path}=" in error.remedy


@pytest.mark.parametrize("field", ["name", "_target_"])
def test_a_method_has_a_name_and_a_target(config: Config, field: str) -> None:
    del config["method"][field]
    error = refused(config)
    assert error.field == "method"
    assert f"it has no {field}" in error.problem
    assert "conf/method" in error.remedy


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "cpu cpu"])
def test_an_unknown_device(device: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(device, seed=0)
    assert caught.value.field == "device"
    assert repr(device) in caught.value.problem
    assert "device=cpu" in caught.value.remedy


def test_float16_needs_cuda(config: Config) -> None:
    with pytest.raises(UserError, match="dtype=bfloat16"):
        from_config(config | {"dtype": "float16"})
    assert from_config(config | {"dtype": "float16", "device": "cuda:0"}).dtype == "float16"


def test_settings_cannot_be_changed(config: Config) -> None:
    settings = from_config(config)
    with pytest.raises(ValidationError):
        settings.wbits = 8
    with pytest.raises(ValidationError):
        settings.model.source = "elsewhere"


@pytest.mark.parametrize(
    ("bits", "group_size", "name"),
    [((4, 16, 16), -1, "w4a16"), ((4, 8, 4), -1, "w4a8kv4"), ((3, 16, 16), 32, "w3a16g32")],
)
def test_bit_configs_are_named_in_the_fields_shorthand(
    config: Config, bits: tuple[int, int, int], group_size: int, name: str
) -> None:
    config["wbits"], config["abits"], config["kvbits"] = bits
    assert from_config(set_at(config, "group_size", group_size)).bits_name == name


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"wbits": 4}, "w4syma16"),
        ({"wbits": 4, "abits": 8, "group_size": 32, "head_bits": 8}, "w4syma8h8g32"),
        ({"wbits": 16, "head_bits": 4}, "w16a16h4sym"),
        ({"wbits": 16, "abits": 8, "group_size": 32}, "w16a8"),  # no weight has the grid
    ],
)
def test_symmetric_weight_grids_are_part_of_the_name_where_a_weight_has_them(
    config: Config, changes: dict[str, int], name: str
) -> None:
    asymmetric, symmetric = (from_config({**config, **changes, "symmetric": each}) for each in (False, True))
    assert symmetric.bits_name == name
    assert (asymmetric.bits_name == name) is (asymmetric == symmetric)


def test_settings_and_store_load_nothing_heavy() -> None:
    code = "import sys, src.settings, src.storage.store, src.errors, src.runs.cli, src.runs.sweep; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "wandb"} & set(result.stdout.split())


@pytest.mark.parametrize(
    ("folder", "told"),
    [("", "working directory"), (" ", "working directory"), ("/data/hf_" + "aB3" * 12, "key or token")],
)
def test_a_yaml_too_names_no_folder_after_a_secret_or_nothing(config: Config, folder: str, told: str) -> None:
    error = refused(set_at(config, "output_dir", folder))
    assert error.field == "output_dir"
    assert told in str(error)
