"""Failures counted by hand on transcripts made for it."""

from __future__ import annotations

import pytest

from src.data.transcripts import Transcript
from src.scoring.failure_modes import BUCKETS, Failures, compression_ratio, failures, loops
from src.scoring.wer import score
from src.text.normalizers import ENGLISH_RULES, Rules


def heard(reference: str, hypothesis: str, seconds: float = 3.0, capped: bool = False) -> Transcript:
    return Transcript("u", reference, hypothesis, seconds, len(hypothesis.split()), capped, None)


def counted(*transcripts: Transcript) -> tuple[Failures, list[Failures]]:
    scores = score([item.reference for item in transcripts], [item.hypothesis for item in transcripts], ENGLISH_RULES)
    return failures(transcripts, scores, ENGLISH_RULES)


@pytest.mark.parametrize(
    "text",
    [
        "the the the the",
        "he said he said he said",
        "so I went to the to the to the shop",  # a loop that was left again
        "one more time please one more time please one more time please",
        "The cat. The cat! the, cat",  # as scored: without case and punctuation
        "thethethethethethethethethethethethethethe",  # a loop inside a word
        "0" * 16 * 40,  # which is the number 0 once normalised
        "0" * 16 * 448,  # which is none
        "00 zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero",
        "uh uh uh uh uh uh uh uh",  # fillers, which are not scored
        "(laughs) (laughs) (laughs) (laughs)",
        "♪ ♪ ♪ ♪ ♪",
        "\ud800 " * 20,
    ],
)
def test_a_phrase_over_and_over_is_a_loop(text: str) -> None:
    assert loops(text, ENGLISH_RULES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no",  # people say so
        "she said he said she said",
        "he said he said it",
        "a b a c a d a e",
        "the quick brown fox jumps over the lazy dog and runs away from the angry farmer",
        "never never give up never never",
    ],
)
def test_what_people_say_is_none(text: str) -> None:
    assert not loops(text, ENGLISH_RULES)


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("ありがとうありがとうありがとう", True),
        ("わくわくわくわく", True),
        ("わくわくわく", False),
        ("ははははは", False),  # laughter
        ("は" * 60, True),
        ("今日は天気がいいので公園まで歩いて行こうと思います", False),
    ],
)
def test_a_loop_of_characters(text: str, looped: bool) -> None:
    assert loops(text, Rules.of("ja")) is looped


def test_the_compression_ratio_is_whisper_s() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("a") < 1
    assert compression_ratio("all work and no play " * 20) > 10


def test_a_loop_that_was_spoken_is_no_failure() -> None:
    overall, _ = counted(heard("no no no no", "no no no no"), heard("no", "no no no no"))
    assert (overall.loops, overall.loop_rate) == (1, 50.0)


def test_empty_capped_and_the_kinds_of_errors() -> None:
    overall, _ = counted(
        heard("a b c d", ""),  # four deletions
        heard("a b", "...", capped=True),  # no word, but the normalizer leaves a dot: a substitution, a deletion
        heard("a b c", "a x c y z"),  # a substitution, two insertions
        heard("e f g", "e f g"),
    )
    assert (overall.utterances, overall.words) == (4, 12)
    assert (overall.empty, overall.empty_rate) == (2, 50.0)
    assert (overall.capped, overall.cap_hit_rate) == (1, 25.0)
    assert overall.wer == pytest.approx(100 * 9 / 12)
    shares = overall.substitution_share, overall.deletion_share, overall.insertion_share
    assert shares == pytest.approx((100 * 2 / 9, 100 * 5 / 9, 100 * 2 / 9))


def test_without_an_error_no_kind_has_a_share() -> None:
    overall, _ = counted(heard("a b", "a b"))
    assert overall.wer == 0
    assert (overall.substitution_share, overall.deletion_share, overall.insertion_share) == (None, None, None)


def test_failures_are_told_apart_by_duration() -> None:
    lengths = (0.5, 4.99, 5.0, 12.0, 29.9, 30.0, 65.0)
    wrong = (5.0, 65.0)
    overall, parts = counted(*(heard("a b", "" if s in wrong else "a b", s, capped=s > 30) for s in lengths))
    assert [part.seconds[0] for part in parts] == list(BUCKETS)
    assert [part.seconds[1] for part in parts] == [5.0, 10.0, 20.0, 30.0, None]
    assert [part.utterances for part in parts] == [2, 1, 1, 1, 2]
    assert [part.empty_rate for part in parts] == [0, 100, 0, 0, 50]
    assert [part.cap_hit_rate for part in parts] == [0, 0, 0, 0, 50]
    assert [part.wer for part in parts] == [0, 100, 0, 0, 50]
    for name in ("utterances", "words", "loops", "empty", "capped"):
        assert sum(getattr(part, name) for part in parts) == getattr(overall, name)


def test_a_duration_that_no_clip_has_is_counted_as_none() -> None:
    _, (first, second, *_) = counted(heard("a", "b", 1.0))
    assert first.utterances == 1
    assert (second.utterances, second.words, second.wer, second.empty_rate) == (0, 0, None, None)
