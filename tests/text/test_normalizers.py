"""The normalizers are Whisper's originals, quirks included; what they cannot read is scored all the same, and told."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from src.scoring.wer import score
from src.text.normalizers import ENGLISH_RULES, Rules

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


PIECES = (
    *("zero", "one", "twenty", "first", "million", "half", "and a half", "point", "double", "per", "cent", "dollars"),
    *(
        "uh",
        "mm",
        "mr",
        "can't",
        "it's been",
        "o'clock",
        "colour",
        "$",
        "€",
        "¢",
        "%",
        ".",
        ",",
        "'",
        "-",
        "007",
        "1.5",
    ),
    *(
        "1,000",
        "²",
        "½",
        "٣",
        "(",
        ")",
        "[",
        "]",
        "<",
        ">",
        "()",
        "{",
        "\ud800",
        "\ufeff",
        "\u200b",
        "\u00ad",
        "\u2019",
    ),
    *("\n", "\x85", "\x1c", "\u3000", "\u1680", "İ", "ß", "Σ", "ﬁ", "０", "\u0301", "e\u0301", "…", "नमस्ते", "日本"),
)
LOOPS = ("0" * 16 * 448, "9" * 4301, "$" + "1" * 5000 + " million", "1" * 4300 + ".5 billion", "٣" * 4301)


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


@pytest.mark.parametrize(
    ("language", "original"),
    [
        ("en", EnglishTextNormalizer()),
        ("de", BasicTextNormalizer(preserve_marks=True)),
        ("ja", BasicTextNormalizer(preserve_marks=True, split_letters=True)),
    ],
)
def test_no_character_differs_from_what_the_original_makes(language: str, original: Callable[[str], str]) -> None:
    rules, draw = Rules.of(language), random.Random(0)
    for _ in range(1500):
        text = "".join(draw.choice(PIECES) + draw.choice(("", " ", "  ")) for _ in range(draw.randint(1, 12)))
        assert rules.normalize(text) == original(text).strip(), ascii(text)


@pytest.mark.parametrize("text", LOOPS, ids=lambda text: text[:2])
def test_numbers_that_are_too_long_cost_the_rule_for_numbers_and_no_point(text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        EnglishTextNormalizer()(text)
    assert ENGLISH_RULES.falls_back(text)
    assert ENGLISH_RULES.normalize(f"Mr. {text} isn't 20").startswith("mister ")
    assert ENGLISH_RULES.normalize(f"{text} twenty, colour").endswith(" twenty color")
    assert score(["the cat sat"], [text], ENGLISH_RULES).wer == pytest.approx(100)
    assert score([text], [text], ENGLISH_RULES).wer == 0


def test_a_number_that_can_be_read_costs_nothing() -> None:
    text = "twenty " + "0" * 4300
    assert not ENGLISH_RULES.falls_back(text)
    assert ENGLISH_RULES.normalize(text) == "20 0"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["(", "[", "<", "(x ", " ", "uh "])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_an_hour_of_a_loop_takes_no_hour(unit: str, language: str) -> None:
    """Whisper's own patterns take minutes for these."""
    rules = Rules.of(language)
    assert rules.normalize(unit * 100_000 + "end").split()[-1][-1] == "d"


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "wer"),
    [
        ("hi", "मैं घर जा रहा हूँ", "मैं घर जा रही हूँ", 20),  # a vowel sign
        ("hi", "किताब मेज पर है।", "किताब, मेज पर है", 0),
        ("hi", "कल", "क्ल", 100),  # a virama
        ("de", "um acht", "acht", 50),  # a filler in English
        ("de", "schön", "schon", 100),
        ("de", "Straße", "strasse", 100),
        ("sv", "för får får får", "for får far får", 50),
        ("vi", "má mà mạ", "ma mà ma", 200 / 3),
        ("vi", "tiếng Việt", "tie\u0302\u0301ng vie\u0323\u0302t", 0),  # the same, decomposed
        ("fr", "deux dollars", "$2", 100),
        ("ja", "今日は晴れ。", "今日わ晴れ", 20),
        ("zh", "你好，世界", "你好 世界", 0),
        ("th", "ที่นี่", "ที่นั่น", 100),  # two grapheme clusters; of three written, one is new and two differ
        ("km", "ខ្ញុំ ទៅ", "ខ្ញុំ មក", 50),
    ],
)
def test_in_other_languages_wrong_words_are_wrong(language: str, reference: str, hypothesis: str, wer: float) -> None:
    assert score([reference], [hypothesis], Rules.of(language)).wer == pytest.approx(wer)


def test_what_is_written_without_spaces_is_scored_by_characters() -> None:
    result = score(["今日は晴れ", "はい"], ["今日は 曇り", "はい"], Rules.of("ja"))
    assert (result.words, result.substitutions, result.cer) == (7, 2, result.wer)
    assert {language: Rules.of(language).metric for language in ("en", "de", "ko", "km", "my", "lo", "yue")} == {
        **dict.fromkeys(("en", "de", "ko", "km"), "WER"),
        **dict.fromkeys(("my", "lo", "yue"), "CER"),
    }


def test_each_kind_of_rules_has_a_name_that_finds_it() -> None:
    each = [Rules.of(language, clean=clean) for language in ("en", "de", "ja") for clean in (False, True)]
    assert len({rules.name for rules in each}) == 6
    assert [Rules.named(rules.name) for rules in each] == each


@pytest.mark.parametrize(
    ("text", "typed", "characters"),
    [
        ("I don\u2019t", "I don't", "\u2019"),
        ("it\u02bcs been", "it's been", "\u02bc"),
        ("can`t", "can't", "`"),
        ("don\uff07t", "don't", "\uff07"),
        ("\ufeffso it goes", "so it goes", "\ufeff"),
        ("so \u200bit goes", "so it goes", "\u200b"),
        ("co\u00adoperate", "cooperate", "\u00ad"),
        ("\u200eso\u200f \u202ait\u202c", "so it", "\u200e\u200f\u202a\u202c"),
        ("so\u2060it\x00\x7f", "soit", "\x00\x7f\u2060"),
        ("１，０００", "1,000", "，"),
        ("well．", "well.", "．"),
        ("and\u2026 so\u2026", "and... so...", "\u2026"),
        ("the ｍｒ", "the mr", "ｍｒ"),
        ("caf\u00e9 na\u0131ve", "cafe naıve", ""),
        ("cafe\u0301", "café", ""),
        ("a\u00a0b\u2009c\u202fd\u3000e", "a b c d e", ""),
        ("\u201cso\u201d \u00abit\u00bb goes\u2013on, non\u2011stop", '"so" "it" goes-on, non-stop', ""),
        ("the ﬁrst ﬂoor", "the first floor", ""),
        ("it\ufe0f ❤️ 1½", "it ❤ 1 1/2", "½"),
        ("dogs\u2019 tails", "dogs' tails", ""),
    ],
)
def test_characters_that_the_rules_misread_are_named_and_made_plain(text: str, typed: str, characters: str) -> None:
    """Those that they read as they should are neither counted nor do they make a difference."""
    clean = Rules.of("en", clean=True)
    assert "".join(ENGLISH_RULES.unknown(text)) == "".join(clean.unknown(text)) == characters
    assert clean.normalize(text) == clean.normalize(typed) == ENGLISH_RULES.normalize(typed)
    assert (ENGLISH_RULES.normalize(text) == clean.normalize(text)) == (not characters)


def test_outside_of_english_marks_of_spelling_stay() -> None:
    clean = Rules.of("fa", clean=True)
    assert clean.normalize("می\u200cخواهم\u200f") == "می\u200cخواهم"
    assert Rules.of("km", clean=True).normalize("ខ្ញុំ\u200bទៅ") == "ខ្ញុំ ទៅ"
    assert Rules.of("uk", clean=True).unknown("п\u02bcять") == ["\u02bc"]
    assert Rules.of("de").unknown("geht\u2019s") == []
