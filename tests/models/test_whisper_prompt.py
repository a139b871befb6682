"""The prompt of a checkpoint whose generation settings are outdated is what its tokenizer says, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.errors import UserError
from src.models.loading import load, load_prompt
from tests.models.checkpoints import edited
from tests.tiny import model_settings

FORCED = [[1, None], [2, 92], [3, 93]]  # language, task, no timestamps
ENGLISH, MULTILINGUAL = (90, 93), (90, 91, 92, 93)
DROPPED = ("is_multilingual", "no_timestamps_token_id", "decoder_start_token_id")
TOLD: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[int, ...]]] = {
    "languages without tasks": ({"lang_to_id": {"<|en|>": 91}}, ("is_multilingual",), MULTILINGUAL),
    "a flag alone": ({"is_multilingual": True}, (), MULTILINGUAL),
    "forced tokens, and nothing else": ({"forced_decoder_ids": FORCED}, DROPPED, MULTILINGUAL),
    "a forced language": ({"forced_decoder_ids": [[1, 91], [2, 92], [3, 93]]}, DROPPED, MULTILINGUAL),
    "no forced language": ({"forced_decoder_ids": [[1, 93]]}, DROPPED, ENGLISH),
    "a flag against languages": ({"is_multilingual": False, "lang_to_id": {"<|en|>": 91}}, (), ENGLISH),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_tokenizer_knows_what_generation_settings_leave_out(name: str, copy: Path) -> None:
    changes, dropped, expected = TOLD[name]
    edited("generation_config.json", drop=dropped, **changes)(copy)
    right, wrong = ("en", None) if expected == MULTILINGUAL else (None, "en")
    assert load(model_settings(copy, language=right), "cpu", 0).prompt == expected
    assert load_prompt(model_settings(copy, language=right)) == expected
    with pytest.raises(UserError, match=r"^model\.language: "):
        load(model_settings(copy, language=wrong), "cpu", 0)


def test_without_generation_settings_config_json_tells(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    edited("config.json", forced_decoder_ids=FORCED)(copy)
    assert load(model_settings(copy, language="en"), "cpu", 0).prompt == MULTILINGUAL


@pytest.mark.parametrize(
    ("changes", "dropped", "told"),
    [
        ({}, ("is_multilingual",), r"lacks is_multilingual"),
        ({"lang_to_id": {"<|en|>": 92}, "is_multilingual": True}, (), r"lang_to_id 92 where the tokenizer has 91"),
        ({"is_multilingual": True, "task_to_id": {"transcribe": 91}}, (), r"task_to_id 91 where the tokenizer has 92"),
        ({"decoder_start_token_id": 91}, (), r"decoder_start_token_id 91 where the tokenizer has 90"),
    ],
)
def test_what_contradicts_the_tokenizer_is_refused(
    changes: dict[str, Any], dropped: tuple[str, ...], told: str, copy: Path
) -> None:
    edited("generation_config.json", drop=dropped, **changes)(copy)
    with pytest.raises(UserError, match=told):
        load(model_settings(copy, language="en"), "cpu", 0)
