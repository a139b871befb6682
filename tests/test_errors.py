from __future__ import annotations

import pickle

import pytest

from src.errors import UserError, did_you_mean


def test_a_user_error_reads_as_one_sentence_each_for_problem_and_remedy() -> None:
    error = UserError("wbits", "9 is not valid.", "Use 8")
    assert str(error) == "wbits: 9 is not valid. Use 8."


def test_a_user_error_survives_the_way_back_from_a_cluster_job() -> None:
    error = pickle.loads(pickle.dumps(UserError("wbits", "9 is not valid", "Use 8")))
    assert (error.field, error.problem, error.remedy) == ("wbits", "9 is not valid", "Use 8")
    assert str(error) == "wbits: 9 is not valid. Use 8."


@pytest.mark.parametrize("word", ["gtpq", "GPTQ".lower(), "gptqq"])
def test_the_nearest_choice_is_proposed(word: str) -> None:
    assert did_you_mean(word, ["rtn", "gptq", "awq"]) == "Did you mean 'gptq'? Available: awq, gptq, rtn"


def test_where_nothing_is_near_all_choices_are_listed() -> None:
    assert did_you_mean("zzz", {"rtn": 1, "gptq": 2}) == "Available: gptq, rtn"
