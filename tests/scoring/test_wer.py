"""Error rates against cases counted by hand and against jiwer's own pooled rates."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from src.scoring.wer import SCORER, score
from src.text.normalizers import ENGLISH_RULES

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet"]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "substitutions", "deletions", "insertions"),
    [
        ("a b c d", "a b c d", 0, 0, 0),
        ("a b c d", "a x c d", 1, 0, 0),
        ("a b c d", "a c d", 0, 1, 0),
        ("a b c d", "a b q c d", 0, 0, 1),
        ("a b c d", "", 0, 4, 0),
        ("a b", "x y z w", 2, 0, 2),
        ("a b c d e f", "b c x e f g", 1, 1, 1),
    ],
)
def test_hand_counted(reference: str, hypothesis: str, substitutions: int, deletions: int, insertions: int) -> None:
    result = score([reference], [hypothesis], ENGLISH_RULES)
    assert (result.substitutions, result.deletions, result.insertions) == (substitutions, deletions, insertions)
    assert result.words == len(reference.split())
    assert result.wer == pytest.approx(100 * (substitutions + deletions + insertions) / result.words)


def test_rates_are_pooled_and_not_averaged() -> None:
    result = score(["a b c d e f g h i", "k"], ["a b c d e f g h i", "l"], ENGLISH_RULES)
    assert result.wer == pytest.approx(10.0)  # the mean of the utterances would be 50


def test_insertions_may_exceed_the_reference() -> None:
    assert score(["a"], ["a b c d"], ENGLISH_RULES).wer == pytest.approx(300.0)


def test_characters_are_counted_after_normalisation() -> None:
    result = score(["Hello, Adam!"], ["hello adan"], ENGLISH_RULES)
    assert result.cer == pytest.approx(100 / len("hello adam"))
    assert result.wer == pytest.approx(50.0)


def test_case_punctuation_fillers_and_spelling_do_not_count() -> None:
    assert score(["Um, the colour is twenty-three."], ["the color is 23"], ENGLISH_RULES).wer == 0


def test_utterance_counts_add_up_and_agree_with_jiwer() -> None:
    random = np.random.default_rng(0)
    references = [" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(100)]
    hypotheses = [" ".join(random.choice(WORDS, random.integers(0, 14))) for _ in range(100)]
    result = score(references, hypotheses, ENGLISH_RULES)
    assert result.wer == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert result.cer == pytest.approx(100 * jiwer.cer(references, hypotheses))
    assert result.utterance_errors.sum() == result.substitutions + result.deletions + result.insertions
    assert result.utterance_words.sum() == result.words
    each = [
        100 * jiwer.wer(reference, hypothesis) for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    np.testing.assert_allclose(100 * result.utterance_errors / result.utterance_words, each)


def test_order_of_utterances_does_not_matter() -> None:
    references, hypotheses = ["a b c", "d e", "f"], ["a x c", "d", "f g"]
    assert (
        score(references, hypotheses, ENGLISH_RULES).wer == score(references[::-1], hypotheses[::-1], ENGLISH_RULES).wer
    )


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [([], [], "0 references"), (["a"], ["a", "b"], "1 references and 2"), (["a", "uh"], ["a", "b"], "at 1 is empty")],
)
def test_what_cannot_be_scored_is_refused(references: list[str], hypotheses: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(references, hypotheses, ENGLISH_RULES)


def test_the_version_is_recorded() -> None:
    assert SCORER.startswith("jiwer/4.")
