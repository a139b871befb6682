"""What a race tells of its candidates, from records with made-up scores."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import spearmanr

from src.records import CHOSEN, Race, Record
from src.sweepers.candidate import Candidate
from src.sweepers.evidence import Asked, race_of
from tests.reporting.recorded import record


def candidate(name: str, megabytes: float, *rates: float, model: str = "small", **quantized: Any) -> Candidate:
    """One that was heard in as many rounds as it has rates, from the first on."""
    found = []
    for rate in rates or (0.0,):
        plain = record("rtn", "clean", rate, model=model)
        plain["results"]["quantize"] |= {"disk_bytes": megabytes * 1e6, **quantized}
        plain["results"]["profile"]["roofline"] = None
        found.append(Record.of(plain))
    return Candidate([name], sized=found[0], heard=dict(enumerate(found if rates else [])))


def raced(*field: Candidate) -> Race:
    return race_of(Asked("r", {}, [6], []), field, field[0], None)


def on_front(*field: Candidate) -> list[str]:
    return [each.name for each in raced(*field).candidates if each.front]


def test_a_smaller_model_at_full_precision_is_on_the_front_with_a_larger_quantized_one() -> None:
    small, large = candidate("fp", 8.0, 5.0, 5.0), candidate("w4", 9.0, 3.0, 3.0, model="large")
    beaten = candidate("w8", 10.0, 4.0, 4.0, model="large")
    assert on_front(small, large, beaten) == ["fp", "w4"]


def test_candidates_are_compared_on_the_most_clips_that_both_were_heard_on() -> None:
    """The first is worse on all clips than the second was on six, and better on these."""
    assert on_front(candidate("far", 2.0, 5.0, 9.0), candidate("dropped", 2.0, 8.0)) == ["far"]
    assert on_front(candidate("far", 2.0, 8.0, 9.0), candidate("dropped", 1.0, 8.0)) == ["dropped"]


def test_equals_are_both_on_the_front_and_what_was_not_heard_is_not() -> None:
    assert on_front(candidate("a", 2.0, 5.0), candidate("b", 2.0, 5.0), candidate("c", 1.0)) == ["a", "b"]


def test_proxies_are_weighed_within_a_model_and_rounds_over_all() -> None:
    costs, first, last = (0.1, 0.4, 0.2, 0.8), (5.0, 9.0, 6.0, 8.0), (4.0, 7.0, 8.0, 9.0)
    field = [
        candidate(f"c{number}", 1.0, *rates, expected_nats=cost)
        for number, (cost, *rates) in enumerate(zip(costs, first, last, strict=True))
    ]
    other = candidate("other", 1.0, 1.0, 1.0, model="large", expected_nats=100.0)
    found = {(each.proxy, each.model, each.clips): each for each in raced(*field, other).agreements}
    known = {
        ("sum of sensitivities", "small", 6): spearmanr(costs, first).statistic,
        ("sum of sensitivities", "small", None): spearmanr(costs, last).statistic,
        ("WER on 6 clips", None, None): spearmanr([*first, 1.0], [*last, 1.0]).statistic,
    }
    assert {name: each.spearman for name, each in found.items()} == pytest.approx(known, abs=1e-6)
    assert [found[name].candidates for name in known] == [4, 4, 5]


def test_too_few_candidates_have_no_order() -> None:
    two = [candidate(f"c{number}", 1.0, number, number, expected_nats=0.1 * number) for number in (1, 2)]
    assert raced(*two, candidate("unheard", 1.0, expected_nats=1.0)).agreements == []


def test_those_that_came_furthest_come_first() -> None:
    names = [
        each.name
        for each in raced(
            candidate("last", 1.0, 9.0, 9.0),
            candidate("unheard", 9.0),
            candidate("out", 1.0, 1.0),
            candidate("second", 1.0, 3.0, 3.0),
        ).ranked
    ]
    assert names == ["last", "second", "out", "unheard"], "the first was chosen"
    assert raced(candidate("one", 1.0, 1.0, 1.0)).chosen is not None
    assert raced(candidate("one", 1.0, 1.0, 1.0)).candidates[0].outcome == CHOSEN
