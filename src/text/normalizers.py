"""The text that both sides of every error rate pass through, by the language of the references.

English goes through Whisper's original English normalizer, as on the Open ASR leaderboard. Other languages go through
Whisper's basic one with marks kept: without them, as in Whisper's paper, the vowels of Hindi and the accents of all
languages would not count. What is written without spaces is scored by characters (grapheme clusters).

Where the English normalizer raises, all of its rules but the one for numbers are applied. It does so for numbers of
more digits than Python reads (4300, see ``sys.set_int_max_str_digits``), which a model in a loop writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Final, Literal, get_args

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from src.text.languages import RulesKind, kind_of
from src.text.plain_text import plain

Metric = Literal["WER", "CER"]

_NOT_SCORED: Final = "ignore time segment in scoring"  # the leaderboard's mark, after normalisation
_VERSION: Final = version("whisper-normalizer")
_CLEAN: Final = "-clean"
_REMEMBERED: Final = 2**17  # texts: references and two systems' transcripts of the largest test sets


@dataclass(frozen=True)
class Rules:
    """How texts of a language are normalised, and into what they are split.

    Attributes:
        kind: Whisper's English or basic rules; the latter by words or by characters.
        clean: whether texts are made plain first: see :func:`~src.text.plain_text.plain`.
    """

    kind: RulesKind
    clean: bool = False

    @classmethod
    def of(cls, language: str | None, *, clean: bool = False) -> Rules:
        """The rules for a language by its code; see :func:`~src.text.languages.kind_of`."""
        return cls(kind_of(language), clean)

    @classmethod
    def named(cls, name: str) -> Rules:
        """The rules that a record names, of the installed version; those for English where it names none of these."""
        known = [cls(kind, clean) for kind in get_args(RulesKind) for clean in (False, True)]
        wanted = name.partition("/")[0]
        return next((rules for rules in known if rules.name.partition("/")[0] == wanted), cls("english"))

    @property
    def name(self) -> str:
        """What records and keys call them, with the version of the package: ``whisper-english/0.1.15``."""
        return f"whisper-{self.kind}{_CLEAN if self.clean else ''}/{_VERSION}"

    @property
    def english(self) -> bool:
        return self.kind == "english"

    @property
    def by_characters(self) -> bool:
        """Whether what they call a word is a character."""
        return self.kind == "basic-diacritics-characters"

    @property
    def metric(self) -> Metric:
        """What an error rate over their words is."""
        return "CER" if self.by_characters else "WER"

    def normalize(self, text: str) -> str:
        """Words, or characters, in a uniform writing with single spaces between them."""
        return self._normalized(text)[0]

    def falls_back(self, text: str) -> bool:
        """Whether the rule for numbers cannot be applied to a text and is left out."""
        return self._normalized(text)[1]

    def is_scored(self, reference: str) -> bool:
        """Whether a reference is scored: the leaderboard drops those that normalise to nothing or to its mark."""
        return self.normalize(reference) not in ("", _NOT_SCORED)

    def words(self, text: str) -> list[str]:
        """Words of a text once normalised. English rules leave a dot of "...", which is scored but is no word."""
        return [word for word in self.normalize(text).split() if any(map(str.isalnum, word))]

    def unknown(self, text: str) -> list[str]:
        """Characters that the rules misread: made plain, they change the words of the text. Sorted, each once.

        Those count that would be made plain if ``clean`` were set, whether it is or not.
        """
        if not self._misread(text, self._plain(text)):
            return []
        changed = [char for char in sorted(set(text)) if self._plain(char) != char]
        return [char for char in changed if self._misread(text, text.replace(char, self._plain(char)))] or changed

    def _plain(self, text: str) -> str:
        return plain(text, english=self.english)

    def _misread(self, text: str, other: str) -> bool:
        as_it_is = Rules(self.kind)
        return text != other and as_it_is.normalize(text) != as_it_is.normalize(other)

    def _normalized(self, text: str) -> tuple[str, bool]:
        return _read(self.kind, self._plain(text) if self.clean else text)


ENGLISH_RULES: Final = Rules("english")


@lru_cache(_REMEMBERED)
def _read(kind: RulesKind, text: str) -> tuple[str, bool]:
    """The text once normalised, and whether the rule for numbers was left out; a millisecond a sentence."""
    if kind != "english":
        by_characters = kind == "basic-diacritics-characters"
        return str(_basic(by_characters)(_without_brackets(text))).strip(), False
    text = _prepared(text)
    try:
        return str(_english()(text)).strip(), False
    except Exception:  # whatever it stumbles over, no text is left without a score
        return str(_english(numbers=False)(text)).strip(), True


@cache
def _english(*, numbers: bool = True) -> EnglishTextNormalizer:
    """Built once: it loads a spelling map."""
    normalizer = EnglishTextNormalizer()
    if not numbers:
        normalizer.standardize_numbers = str
    return normalizer


@cache
def _basic(by_characters: bool) -> BasicTextNormalizer:
    return BasicTextNormalizer(preserve_marks=True, split_letters=by_characters)


def _prepared(text: str) -> str:
    """What the English rules begin with; see :func:`_without_brackets`."""
    return " ".join(re.sub(_english().ignore_patterns, "", _without_brackets(text)).split())


def _without_brackets(text: str) -> str:
    """What Whisper's rules begin with, and when they do it again they find nothing: they give what they gave.

    Their own patterns take a time quadratic in the brackets that nothing closes, and in blanks: half a minute for
    40 000 of them, which is an hour of a model in a loop.
    """
    text = _cut(_cut(text.lower(), r"[<\[][^>\]]*[>\]]", "<[", ">]"), r"\(([^)]+?)\)", "(", ")")
    return re.sub(r"\s+", " ", text)


def _cut(text: str, pattern: str, opening: str, closing: str) -> str:
    """Without what the pattern finds; brackets behind the last closing one become braces, which rules drop alike."""
    end = max(map(text.rfind, closing)) + 1
    return re.sub(pattern, "", text[:end]) + text[end:].translate(str.maketrans(opening, "{" * len(opening)))
