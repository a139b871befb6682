"""Two systems on the same utterances: what changed, what got worst, and what is dropped before scoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.data.transcripts import Transcript, save_transcripts
from src.scoring.comparison import Scored, changes, difference, scored, worst
from src.scoring.legibility import announce
from src.text.normalizers import ENGLISH_RULES

SPOKEN = ("a b c d", "e f g h", "i j k l", "m n o p")


def system(folder: Path, *hypotheses: str, speakers: tuple[str | None, ...] = (None,) * 4) -> Scored:
    texts = zip(SPOKEN, hypotheses, speakers, strict=True)
    found = [Transcript(f"u{at}", ref, hyp, 2.0, 4, False, who) for at, (ref, hyp, who) in enumerate(texts)]
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    save_transcripts(found, path)
    return scored(path, ENGLISH_RULES)


def test_changes_are_counted_in_transcripts_utterances_and_words(tmp_path: Path) -> None:
    base = system(tmp_path, "a b c d", "e f x", "i j k z", "m n o p")
    own = system(tmp_path, "A, b c d.", "e f g h", "i j k y", "q")
    found = changes(own, base)
    assert (found.transcripts, found.better, found.worse, found.words) == (3, 1, 1, 2 + 4)
    assert difference(own, base, 200, 0).difference == pytest.approx(100 * (1 + 4 - 2 - 1) / 16)


def test_the_worst_regressions_come_first_and_are_bounded(tmp_path: Path) -> None:
    fp = system(tmp_path, "a b c d", "x", "i j k l", "m n o p")
    own = system(tmp_path, "a b c d", "x", "i", "m n o z")
    rows = worst(own, fp, 3)
    assert [row["id"] for row in rows] == ["u2", "u3", "u1"]
    assert rows[0] == {
        "id": "u2",
        "reference": "i j k l",
        "hypothesis": "i",
        "fp hypothesis": "i j k l",
        "errors": 3,
        "fp errors": 0,
    }


def test_references_without_words_are_dropped_and_counted(tmp_path: Path) -> None:
    texts = ("a b", "uh", "ignore time segment in scoring", "c")
    found = [Transcript(f"u{at}", text, "a", 2.0, 1, False, None) for at, text in enumerate(texts)]
    save_transcripts(found, tmp_path / "transcripts.jsonl")
    result = scored(tmp_path / "transcripts.jsonl", ENGLISH_RULES)
    assert [item.id for item in result.transcripts] == ["u0", "u3"]
    assert result.figures(100, 0)["dropped"] == 2
    assert result.figures(100, 0)["words"] == 3


def test_figures_say_what_was_resampled(tmp_path: Path) -> None:
    figures = system(tmp_path, *SPOKEN, speakers=("s", "s", "t", "t")).figures(100, 0)
    assert (figures["resampled"], figures["speakers"], figures["utterances"]) == ("utterance", 2, 4)
    many = [Transcript(f"u{at}", "a b", "a", 2.0, 1, False, f"s{at % 12}") for at in range(48)]
    save_transcripts(many, tmp_path / "many.jsonl")
    figures = scored(tmp_path / "many.jsonl", ENGLISH_RULES).figures(100, 0)
    assert (figures["resampled"], figures["speakers"], figures["utterances"]) == ("speaker", 12, 48)


def test_numbers_that_are_too_long_are_counted_and_told_and_the_point_has_its_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = system(tmp_path, "a b c d", "0" * 16 * 448, "i j k l", "1" * 5000 + " percent")
    announce(own.texts, 4, own.rules)
    assert "0 references and 2 transcripts hold numbers of more digits than can be read" in caplog.text
    figures = own.figures(100, 0)
    assert (figures["texts"]["fallback_references"], figures["texts"]["fallback_hypotheses"]) == (0, 2)
    assert (figures["wer"], figures["failures"]["loops"], figures["failures"]["empty"]) == (50.0, 2, 0)


def test_transcripts_of_any_text_have_scores(tmp_path: Path) -> None:
    own = system(tmp_path, "", "?! \u200b ...", "\ud800 \x00", "p " * 20_000)
    figures = own.figures(100, 0)
    assert figures["insertions"] >= 20_000 - 4
    assert worst(own, own, 4)[0]["id"] == "u3"
