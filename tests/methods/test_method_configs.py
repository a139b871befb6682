"""Every yaml in conf/method and conf/bits: contract tests that a new file takes part in by being there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.errors import UserError
from src.methods.build import build_method
from src.quant.link_statistics import LinkStatistics
from tests.composed import composed

CONF = Path(__file__).resolve().parents[2] / "conf"
METHODS = sorted(CONF.glob("method/*.yaml"))
BIT_CONFIGS = sorted(CONF.glob("bits/*.yaml"))


def read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_yaml_builds_and_sets_every_parameter(path: Path) -> None:
    config = composed(f"method={path.stem}").method
    method = build_method(config)
    assert method.name == path.stem
    assert set(config) == {"_target_", *(field.name for field in fields(method))}
    assert method.needs.statistics <= {field.name for field in fields(LinkStatistics)}


@pytest.mark.parametrize("path", [*METHODS, *BIT_CONFIGS], ids=lambda path: path.stem)
def test_every_line_says_why(path: Path) -> None:
    plain = ("#", "_target_", "name:", "defaults:", "  - ")
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith(plain)]
    assert all(" # " in line for line in lines)


@pytest.mark.parametrize("path", BIT_CONFIGS, ids=lambda path: path.stem)
def test_a_bit_config_says_what_its_name_says(path: Path) -> None:
    bits = read(path)
    assert path.read_text().startswith("# @package _global_\n")
    kv = "" if bits["kvbits"] == 16 else f"kv{bits['kvbits']}"
    assert path.stem == f"w{bits.pop('wbits')}a{bits.pop('abits')}{kv}"
    assert set(bits) == {"kvbits"}


def test_only_the_baseline_leaves_the_model_as_it_is() -> None:
    methods = {path.stem: build_method(composed(f"method={path.stem}").method) for path in METHODS}
    assert [name for name, method in methods.items() if not method.quantizes] == ["fp"]


def gptq_with(**changed: object) -> dict[str, Any]:
    return {**read(CONF / "method" / "gptq.yaml"), **changed}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "src.errors.UserError",
        "src.methods.base.importlib.import_module",
        "src.methods.gptq.torch.hub.load",
        "src.methods.gptq.Method",
        "src.methods.gptq.gptq",
        "src.methods.nothing.Here",
        "src.methods.",
        "src.methods..GPTQ",
        "GPTQ",
        None,
        3,
    ],
)
def test_a_target_that_is_no_method_is_never_called(target: object) -> None:
    with pytest.raises(UserError, match=r"^method\._target_: .* is not a method"):
        build_method(gptq_with(_target_=target))


@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: [inner]], ids=["alone", "in a list"])
def test_targets_inside_parameters_are_checked_too(wrap: Any) -> None:
    with pytest.raises(UserError, match=r"^method\.range(\.0)?\._target_: 'os\.system' is not a method"):
        build_method(gptq_with(range=wrap({"_target_": "os.system", "command": "true"})))


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_"])
def test_hydra_keywords_are_not_parameters(key: str) -> None:
    with pytest.raises(UserError, match=key):
        build_method(gptq_with(**{key: True}))


def test_an_unknown_parameter_proposes_the_closest() -> None:
    with pytest.raises(UserError, match=r"method\.dampp: GPTQ has no such parameter\. Did you mean 'damp'\?"):
        build_method(gptq_with(dampp=0.1))


def test_a_missing_parameter_is_named() -> None:
    config = gptq_with()
    del config["damp"]
    with pytest.raises(UserError, match=r"method\.damp: no value is set"):
        build_method(config)


MISTAKES = {
    "rtn": ["range=mmse"],
    "gptq": ["damp=0", "damp=1.5", "damp=.nan", "block_size=0", "block_size=12.5", "block_size=true", "act_order=1"],
    "hqq": ["lp_norm=1.5", "beta=0", "beta=.inf", "kappa=1", "kappa=true", "iterations='20'"],
    "spqr": ["statistics_bits=1", "statistics_bits=9", "outlier_threshold=0", "outlier_threshold=.nan"],
    "awq": ["objective=modul", "links=[]", "links=[norms]", "links=norm", "clip=maybe"],
    "osplus": ["shift=1", "shift=automatic", "floor=0", "floor=.inf"],
    "omniquant": ["let=automatic", "weight_decay=-1", "weight_decay=1"],
    "autoround": ["lr=0", "lr=fast", "range=mmse", "keep=best", "steps=0"],
    "distill": ["epochs=0", "lr=0", "encoder_weight=-1", "by_clip=1", "batch_size=1.5"],
    "sinq": ["iterations=0", "passes=1.5", "links=[]"],
    "flatquant": ["scale=1", "alpha=0", "clip=maybe", "lr=0", "clip_lr=2", "weight_decay=1", "epochs=0"],
    "tesseraq": ["thresholds=[]", "thresholds=[0.1,0.5]", "thresholds=[1.0,0.5]", "thresholds=all", "scale_decay=-1"],
    "myqasr": ["budget_mb=-1", "budget_bits=four", "extra_bits=null", "widths=[]", "widths=[2,16]", "first=last"],
}


@pytest.mark.parametrize(("name", "mistake"), [(name, each) for name, found in MISTAKES.items() for each in found])
def test_a_value_out_of_range_is_told_with_its_field_and_a_remedy_that_helps(name: str, mistake: str) -> None:
    config, (field, _, text) = composed(f"method={name}").method, mistake.partition("=")
    value = yaml.safe_load(text)
    with pytest.raises(UserError) as caught:
        build_method({**config, field: value})
    assert caught.value.field == f"method.{field}"
    assert repr(value[0] if value == ["norms"] else value) in caught.value.problem
    example = re.search(rf"method\.{field}=(\S+)$|'(\w+)'\?|Available: (\w+)", caught.value.remedy)
    assert example
    better = yaml.safe_load(next(filter(None, example.groups())))
    build_method({**config, field: [better] if value == ["norms"] else better})


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_no_parameter_takes_just_anything(path: Path) -> None:
    config = composed(f"method={path.stem}").method
    for field in set(config) - {"_target_"}:
        with pytest.raises(UserError) as caught:
            build_method({**config, field: 1j})
        assert caught.value.field == f"method.{field}"


def test_an_inner_method_tells_where_it_stands() -> None:
    with pytest.raises(UserError, match=r"^method\.rounder: 'rtn' is not a method\. Use method@method\.rounder=rtn"):
        build_method({**composed("method=awq_gptq").method, "rounder": "rtn"})
    config = composed("method=awq_gptq").method
    with pytest.raises(UserError, match=r"^method\.rounder\.damp: 2 is not a number above 0 and at most 1\."):
        build_method({**config, "rounder": {**config["rounder"], "damp": 2}})
