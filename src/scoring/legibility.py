"""What the rules of scoring could not read as it was meant: characters that they do not know, numbers too long."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from src.data.transcripts import Transcript
from src.text.normalizers import Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Legibility:
    """How many texts of a test set the rules misread, and how many they could not be applied to in full.

    Attributes:
        unknown_references: references with characters that the rules do not know, see
            :meth:`~src.text.normalizers.Rules.unknown`; misread, unless they were made plain.
        unknown_hypotheses: transcripts with such characters.
        characters: these characters in the references, in words, the most frequent first.
        fallback_references: references that were normalised without the rule for numbers.
        fallback_hypotheses: transcripts that were.
    """

    unknown_references: int
    unknown_hypotheses: int
    characters: tuple[str, ...]
    fallback_references: int
    fallback_hypotheses: int


def legibility(transcripts: Sequence[Transcript], rules: Rules) -> Legibility:
    """Counts texts of scored transcripts."""
    references, hypotheses = ([getattr(item, side) for item in transcripts] for side in ("reference", "hypothesis"))
    unknown = [chars for text in references if (chars := rules.unknown(text))]
    found = Counter(char for chars in unknown for char in chars)
    return Legibility(
        unknown_references=len(unknown),
        unknown_hypotheses=sum(bool(rules.unknown(text)) for text in hypotheses),
        characters=tuple(f"{_named(char)} in {count}" for char, count in found.most_common()),
        fallback_references=sum(map(rules.falls_back, references)),
        fallback_hypotheses=sum(map(rules.falls_back, hypotheses)),
    )


def announce(found: Legibility, utterances: int, rules: Rules) -> None:
    """Says, once a point, what a reader of its error rate has to know of the texts behind it."""
    if found.unknown_references:
        told = (
            f"{found.unknown_references} of {utterances} references hold characters unknown to {Rules(rules.kind).name}"
        )
        what = "were made plain" if rules.clean else "are scored as they are; evaluate.clean_text=true makes them plain"
        level = logging.INFO if rules.clean else logging.WARNING
        log.log(level, "evaluate: %s (%s): they %s", told, "; ".join(found.characters[:5]), what)
    if found.fallback_references or found.fallback_hypotheses:
        log.warning(
            "evaluate: %d references and %d transcripts hold numbers of more digits than can be read: they are scored "
            "without the rule for numbers",
            found.fallback_references,
            found.fallback_hypotheses,
        )


def _named(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}"
