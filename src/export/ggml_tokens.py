"""The special tokens by which whisper.cpp knows them: numbers that follow from the size of the vocabulary alone.

From ``whisper_model_load`` and ``whisper_vocab::is_multilingual``: a vocabulary of at least 51,865 tokens is taken for
a multilingual one with as many languages as it is larger, any other for OpenAI's English one. What the file says of
its tokens, and which of them a model was trained with, plays no part; one token more shifts all those behind the
languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from src.models.loading import load_prompt
from src.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ENGLISH: Final = 51864  # tokens of OpenAI's English vocabulary
_LANGUAGES: Final = 99  # of the multilingual one of the same age, which has one token more
_LARGEST_KNOWN: Final = 51866


@dataclass(frozen=True)
class Numbers:
    """Ids of end, start and "no timestamps", behind which the times begin."""

    end: int
    start: int
    no_timestamps: int

    def __str__(self) -> str:
        return f"end {self.end}, start {self.start}, no timestamps {self.no_timestamps}"

    @classmethod
    def of(cls, vocabulary: int) -> Numbers:
        """Those of a vocabulary of this size."""
        if vocabulary <= ENGLISH:
            return cls(50256, 50257, 50362)
        languages = vocabulary - 51766
        return cls(50257, 50258, 50363 + languages - _LANGUAGES)


def unknown_tokens(model: ModelSettings, config: PreTrainedConfig) -> str | None:
    """Why whisper.cpp would take tokens of this Whisper for others, in words; None where it would not."""
    vocabulary, multilingual = config.vocab_size, model.language is not None
    if vocabulary < ENGLISH and multilingual:
        return f"takes a vocabulary of {vocabulary} tokens for English, and this one is multilingual"
    if vocabulary > _LARGEST_KNOWN:
        return f"counts languages by the tokens, and this vocabulary has {vocabulary}, more than OpenAI's largest"
    if model.random_weights:
        return None
    prompt = load_prompt(model)
    ours = Numbers(config.eos_token_id, prompt[0], prompt[-1])
    theirs = Numbers.of(vocabulary)
    if vocabulary >= ENGLISH and ours != theirs:
        return f"looks for {theirs} in a vocabulary of {vocabulary} tokens, and this model has {ours}"
    behind = vocabulary - (ours.no_timestamps + 1) - (config.max_source_positions + 1)
    if ours.no_timestamps + 1 < vocabulary and behind != 0:
        return f"takes all tokens behind {ours.no_timestamps} for times, and this model has others among them"
    return None
