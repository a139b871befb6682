"""The one place that sets which attention function a model calls."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import WhisperConfig

from src.models.attention import attention_replaced


def test_setting_exists_and_is_as_before_afterwards() -> None:
    model: Any = SimpleNamespace(config=WhisperConfig(attn_implementation="sdpa"))
    with attention_replaced(model, "other"):
        assert model.config._attn_implementation == "other"
    assert model.config._attn_implementation == "sdpa"
    with attention_replaced(model, "other", only="eager"):
        assert model.config._attn_implementation == "sdpa"


def test_transformers_without_the_setting_is_told() -> None:
    model: Any = SimpleNamespace(config=object())
    with pytest.raises(RuntimeError, match="version"), attention_replaced(model, "other"):
        pass
