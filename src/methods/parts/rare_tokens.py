"""Which tokens of a transcript are pieces of rare words."""

from __future__ import annotations

from collections.abc import Sequence

from src.metrics.rare_words import is_rare
from src.models.speech import SpeechModel
from src.text.normalizers import Rules

_RULES = Rules("english")


def rare_tokens(speech: SpeechModel, tokens: Sequence[int]) -> list[bool]:
    """For each token, whether it is a piece of a word outside the most frequent ones of English.

    A token belongs to the word that the transcript ends with once the token is read; those of the prompt to none.
    """
    words = speech.text(tokens).split()
    rare = [any(map(is_rare, _RULES.words(word))) for word in words]
    ends = [len(speech.text(tokens[: end + 1]).split()) for end in range(len(tokens))]
    return [0 < end <= len(rare) and rare[end - 1] for end in ends]
