"""How transcripts fail, beyond the number of their errors: loops, nothing at all, cut off, words that nobody said.

Rates are over a whole test set and by length of the audio, as a quantized decoder tends to lose its way in long clips.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from src.data.transcripts import Transcript
from src.scoring.wer import WerResult
from src.text.normalizers import Rules

BUCKETS: Final = (0.0, 5.0, 10.0, 20.0, 30.0)  # lower ends in seconds, each included; the last one is open

_PHRASE_REPEATS: Final = 3  # of two words or more: Holtzman et al., arXiv 1904.09751, who look at a text's end only
_WORD_REPEATS: Final = 4  # of a single word, as people do say one three times
_PHRASE: Final = 2  # words
_CHARACTERS: Final = 2  # of a word, where words are not told apart; a single one repeats in laughter
_LONGEST_PHRASE: Final = 50  # words
_COMPRESSION: Final = 2.4  # Whisper's own sign of a loop: Radford et al., arXiv 2212.04356, section 4.5


@dataclass(frozen=True)
class Failures:
    """Failures of a set of transcripts; None where there is nothing to divide by."""

    seconds: tuple[float, float | None]  # length of the audio, from (included) and to; None is without end
    utterances: Annotated[int, "transcripts"]
    words: Annotated[int, "reference words"]
    wer: Annotated[float | None, "word error rate, %"]
    loops: Annotated[int, "transcripts in a repetition loop"]
    empty: Annotated[int, "transcripts without a word"]
    capped: Annotated[int, "transcripts cut off at the limit on tokens"]
    loop_rate: Annotated[float | None, "loops, % of transcripts"]
    empty_rate: Annotated[float | None, "empty, % of transcripts"]
    cap_hit_rate: Annotated[float | None, "capped, % of transcripts"]
    substitution_share: Annotated[float | None, "substitutions, % of errors"]
    deletion_share: Annotated[float | None, "deletions, % of errors"]
    insertion_share: Annotated[float | None, "insertions, % of errors"]


def loops(text: str, rules: Rules) -> bool:
    """Whether a text is in a repetition loop.

    It is where a phrase of two or more words stands there three times in a row, a single word four times, or where
    zlib makes the text more than 2.4 times shorter, which also finds loops inside of words. Where words are not told
    apart, four characters count as a phrase and two as a word. The text is looked at as it is scored and, since rules
    for numbers, fillers and brackets make nothing or one word of many, as it was written.
    """
    plain = rules.normalize(text)
    word = _CHARACTERS if rules.by_characters else 1
    whole = plain.replace(" ", "") if rules.by_characters else plain
    written = text.lower()
    return (
        _repeats(plain.split(), word)
        or _repeats(written.split(), 1)
        or any(compression_ratio(each) > _COMPRESSION for each in (whole, written))
    )


def compression_ratio(text: str) -> float:
    """Bytes of a text over its bytes compressed by zlib, as Whisper's decoder computes it; 0 for no text."""
    encoded = text.encode(errors="surrogatepass")
    return len(encoded) / len(zlib.compress(encoded))


def failures(transcripts: Sequence[Transcript], scores: WerResult, rules: Rules) -> tuple[Failures, list[Failures]]:
    """Failures of all transcripts, and of those in each of :data:`BUCKETS`, empty buckets included.

    A loop that is in the reference as well is what was said, and does not count.

    Args:
        transcripts: at least one.
        scores: of these transcripts, in their order.
        rules: that they were scored by.
    """
    seconds = np.array([item.seconds for item in transcripts])
    flags = np.array([_flags(item, rules) for item in transcripts])
    bucket = np.searchsorted(BUCKETS, seconds, side="right") - 1
    ends = (*BUCKETS[1:], None)
    spans = list(zip(BUCKETS, ends, strict=True))
    parts = [_count(span, flags, scores, bucket == number) for number, span in enumerate(spans)]
    return _count((BUCKETS[0], None), flags, scores, np.ones(len(transcripts), dtype=bool)), parts


def _flags(transcript: Transcript, rules: Rules) -> tuple[bool, bool, bool]:
    """Whether it is a loop, empty, cut off."""
    looped = loops(transcript.hypothesis, rules) and not loops(transcript.reference, rules)
    return looped, not rules.words(transcript.hypothesis), transcript.capped


def _count(
    seconds: tuple[float, float | None],
    flags: np.ndarray,
    scores: WerResult,
    chosen: np.ndarray,
) -> Failures:
    utterances = int(chosen.sum())
    looped, empty, capped = (int(count) for count in flags[chosen].sum(axis=0))
    substitutions, deletions, insertions = (int(count) for count in scores.utterance_edits[chosen].sum(axis=0))
    spoken, errors = int(scores.utterance_words[chosen].sum()), substitutions + deletions + insertions
    return Failures(
        seconds=seconds,
        utterances=utterances,
        words=spoken,
        wer=_percent(errors, spoken),
        loops=looped,
        empty=empty,
        capped=capped,
        loop_rate=_percent(looped, utterances),
        empty_rate=_percent(empty, utterances),
        cap_hit_rate=_percent(capped, utterances),
        substitution_share=_percent(substitutions, errors),
        deletion_share=_percent(deletions, errors),
        insertion_share=_percent(insertions, errors),
    )


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _repeats(text: Sequence[str], word: int) -> bool:
    """Whether a phrase follows itself often enough: unit i equals unit i + n for a stretch of further repeats.

    A word is ``word`` units long, or up to twice as long: then it is a phrase.
    """
    for length in range(word, min(len(text) // _PHRASE_REPEATS, _LONGEST_PHRASE) + 1):
        needed = length * ((_WORD_REPEATS if length < _PHRASE * word else _PHRASE_REPEATS) - 1)
        run = 0
        for here, there in zip(text, text[length:], strict=False):
            run = run + 1 if here == there else 0
            if run >= needed:
                return True
    return False
