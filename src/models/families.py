"""The families by transformers' ``model_type``; a new one is one line more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.errors import UserError, did_you_mean
from src.models.dimensions import Dimensions
from src.models.family import Family
from src.models.moonshine.family import Moonshine
from src.models.moonshine_streaming.family import MoonshineStreaming
from src.models.parakeet_ctc.family import ParakeetCtc
from src.models.whisper.family import Whisper

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FAMILIES: dict[str, Family] = {
    each.name: each for each in (Whisper(), Moonshine(), MoonshineStreaming(), ParakeetCtc())
}


def family_of(name: str) -> Family:
    """The family of this ``model_type``. Raises UserError."""
    if name not in FAMILIES:
        raise UserError("model.family", f"there is no family {name!r}", did_you_mean(name, FAMILIES))
    return FAMILIES[name]


def dimensions_of(config: PreTrainedConfig) -> Dimensions:
    """The sizes that a configuration tells. Raises UserError: it is of no known family."""
    return family_of(config.model_type).dimensions(config)
