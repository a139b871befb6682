"""The text both sides of every error rate pass through: Whisper's original English normalizer."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Final

from whisper_normalizer.english import EnglishTextNormalizer

NORMALIZER: Final = f"whisper-english/{version('whisper-normalizer')}"


def normalize(text: str) -> str:
    """Lower case, no punctuation or fillers, American spelling, numbers as digits, single spaces."""
    return str(_normalizer()(text)).strip()


@cache
def _normalizer() -> EnglishTextNormalizer:
    """Built once: it loads a spelling map."""
    return EnglishTextNormalizer()
