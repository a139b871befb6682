"""What a search may vary is what the command line says, and what it proposes can be written there."""

from __future__ import annotations

import math

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from src.errors import UserError
from src.records import Record
from src.runs.run import objectives
from src.sweepers.space import Space, divided
from tests.reporting.recorded import record

PLAIN = record("rtn", "clean", 6.0)
RECORD = Record.of(PLAIN | {"results": {name: PLAIN["results"][name] for name in ("evaluate", "quantize")}})


def parsed(*arguments: str) -> tuple[list[str], Space]:
    return divided(OverridesParser.create().parse_overrides(list(arguments)))


def test_sweeps_are_searched_and_the_rest_is_fixed() -> None:
    fixed, space = parsed("seed=3", "method=rtn,gptq", "wbits=choice(2,3,4)", "group_size=range(16,64,16)")
    assert fixed == ["seed=3"]
    assert space.size == 2 * 3 * 3
    assert space.described == {"method": ["rtn", "gptq"], "wbits": ["2", "3", "4"], "group_size": ["16", "32", "48"]}


def test_the_later_of_two_counts() -> None:
    """The command line narrows what a yaml searches."""
    fixed, space = parsed("method=rtn,gptq", "wbits=2,3", "method=rtn")
    assert fixed == ["method=rtn"]
    assert list(space.choices) == ["wbits"]


@given(seed=st.integers(0, 1000))
def test_a_proposal_lies_in_the_space_and_is_an_argument(seed: int) -> None:
    _, space = parsed("method.alpha=interval(0.1,0.9)", "method.lr=tag(log,interval(1e-4,1e-2))", "wbits=2,3")
    assert space.size == math.inf
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = space.suggest(study.ask())
    assert 0.1 <= point["method.alpha"] <= 0.9
    assert 1e-4 <= point["method.lr"] <= 1e-2
    written = OverridesParser.create().parse_overrides(space.overrides(point))
    assert {each.get_key_element(): each.value() for each in written} == {**point, "wbits": int(point["wbits"])}


def test_a_search_of_nothing_is_a_mistake() -> None:
    with pytest.raises(UserError, match="nothing to search"):
        parsed("wbits=3")


def test_one_objective_is_a_number_several_are_a_tuple() -> None:
    assert objectives(RECORD, ["wer"]) == 6.0
    assert objectives(RECORD, ["disk_bytes", "wer"]) == (1000.0, 6.0)
    assert objectives(RECORD, ["wer", "bops"]) == (6.0, None)
