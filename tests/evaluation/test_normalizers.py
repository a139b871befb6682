"""The normalizer is Whisper's original, quirks included."""

from __future__ import annotations

import pytest
from whisper_normalizer.english import EnglishTextNormalizer

from src.evaluation.normalizers import ENGLISH_RULES

GOLDEN = {
    "Hello,   World!\n": "hello world",
    "I'm gonna, you know, won't!": "i am going to you know will not",
    "Um, so uh... the colour [laughs] of (noise) it": "so the color of it",
    "Mr. Smith paid twenty-three dollars": "mister smith paid $23",
    "two thousand and ten": "2010",
    "1,000,000 people": "1000000 people",
    "one hundred and one": "101",
    "She's a café owner": "she is a cafe owner",
    "ignore_time_segment_in_scoring": "ignore time segment in scoring",
    "it's 3 o'clock": "it is 30 clock",
    "?!": "",
    "(um)": "",
    "": "",
}


@pytest.mark.parametrize(("text", "expected"), GOLDEN.items())
def test_golden_cases(text: str, expected: str) -> None:
    assert ENGLISH_RULES.normalize(text) == expected


def test_agrees_with_the_implementation_in_transformers() -> None:
    original = pytest.importorskip("transformers.models.whisper.english_normalizer")
    reference = original.EnglishTextNormalizer(EnglishTextNormalizer().standardize_spellings.mapping)
    for text in GOLDEN:
        assert ENGLISH_RULES.normalize(text) == reference(text).strip()


def test_the_version_is_recorded() -> None:
    name, version = ENGLISH_RULES.name.split("/")
    assert name == "whisper-english"
    assert version[0].isdigit()
