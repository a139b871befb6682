"""Errors in rare words: names, terms, what a language model cannot guess and a small model loses first."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from src.metrics.metric import Counts, Metric

if TYPE_CHECKING:
    from jiwer import WordOutput

    from src.text.normalizers import Rules

_LIST: Final = Path(__file__).parent / "frequent_words.txt"


@cache
def frequent_words() -> frozenset[str]:
    """The 2,000 most frequent words of English once normalised; the file says where they are from."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def _counts(aligned: WordOutput, rules: Rules) -> Counts | None:
    """Rare is what is not among :func:`frequent_words`, numbers and names included; an insertion is no error in one."""
    if not rules.english:
        return None
    rare = [[is_rare(word) for word in reference] for reference in aligned.references]
    wrong = [
        sum(sum(flags[chunk.ref_start_idx : chunk.ref_end_idx]) for chunk in chunks if chunk.type != "equal")
        for flags, chunks in zip(rare, aligned.alignments, strict=True)
    ]
    return wrong, [sum(flags) for flags in rare]


def is_rare(word: str) -> bool:
    """Whether a normalised word is none of :func:`frequent_words`, numbers and names included."""
    return word not in frequent_words() and any(map(str.isalnum, word))


RARE_WORDS = Metric(
    name="rare_word_error_rate",
    stage="evaluate",
    unit="%",
    meaning="reference words outside the 2,000 most frequent of English that were substituted or deleted",
    label="rare words, %",
    heading="rare",
    digits=2,
    counts=_counts,
)
