"""The text both sides of every error rate pass through: Whisper's original English normalizer."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Final

from whisper_normalizer.english import EnglishTextNormalizer

NORMALIZER: Final = f"whisper-english/{version('whisper-normalizer')}"

_NOT_SCORED: Final = "ignore time segment in scoring"  # the leaderboard's mark, after normalisation


def normalize(text: str) -> str:
    """Lower case, no punctuation or fillers, American spelling, numbers as digits, single spaces."""
    return str(_normalizer()(text)).strip()


def is_scored(reference: str) -> bool:
    """Whether a reference is scored: the leaderboard drops those that normalise to nothing or to its mark."""
    return normalize(reference) not in ("", _NOT_SCORED)


def words(text: str) -> list[str]:
    """Words of a text once normalised. The normalizer leaves a dot of "...", which is scored but is no word."""
    return [word for word in normalize(text).split() if any(map(str.isalnum, word))]


@cache
def _normalizer() -> EnglishTextNormalizer:
    """Built once: it loads a spelling map."""
    return EnglishTextNormalizer()
