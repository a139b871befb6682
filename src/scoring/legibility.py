"""What the rules of scoring could not read as it was meant: characters that they do not know, numbers too long."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from src.data.transcripts import Transcript
from src.text.normalizers import Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Legibility:
    """How many texts the rules misread, unless they were made plain, and how many they could not be applied to in full.

    What rules do not know is told by :meth:`~src.text.normalizers.Rules.unknown`.
    """

    unknown_references: Annotated[
        int, "references with characters that the rules of scoring do not know; the record names them"
    ]
    unknown_hypotheses: Annotated[int, "transcripts with such characters"]
    characters: tuple[str, ...]  # that the rules do not know, in the references, in words, the most frequent first
    fallback_references: Annotated[int, "references scored without the rule for numbers, which could not be applied"]
    fallback_hypotheses: Annotated[int, "transcripts scored so"]


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
