"""Languages of speech and text, as far as scoring has to tell them apart: English, those without spaces, the others."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

RulesKind = Literal["english", "basic-diacritics", "basic-diacritics-characters"]

ENGLISH: Final = "en"

# Written without spaces between words. The list is Whisper's: Radford et al., arXiv 2212.04356, appendix C, score them
# by characters; Cantonese came with large-v3 (openai/whisper, tokenizer.py, split_to_word_tokens). Khmer and Tibetan
# are not in it and are scored by the words that their transcripts separate.
UNSPACED: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})

_LETTERS: Final = ("Lu", "Ll", "Lt", "Lo")  # categories
_CODE: Final = re.compile(r"[a-z]{2,3}")
_MISTAKEN: Final = {
    **dict.fromkeys(("eng", "us", "gb"), "en"),
    **dict.fromkeys(("zho", "chi", "cmn", "cn", "wuu", "nan", "hak", "gan", "hsn", "lzh"), "zh"),
    **dict.fromkeys(("jpn", "jp"), "ja"),
    **dict.fromkeys(("mya", "bur", "mm"), "my"),
    "tha": "th",
    "lao": "lo",
}  # codes for languages that have rules of their own, under which these would not be found


def checked(code: str) -> str:
    """The code itself.

    Raises:
        ValueError: it is no code of two or three letters, or another one is used for that language.
    """
    if code in _MISTAKEN:
        raise ValueError(f"Whisper's code for it is {_MISTAKEN[code]}")
    if not _CODE.fullmatch(code):
        raise ValueError("languages are codes of two or three lower-case letters, as Whisper has them: en, de, hi, yue")
    return code


def kind_of(language: str | None) -> RulesKind:
    """Which of Whisper's rules a language is scored by; None is English, as checkpoints are that know one language."""
    if language in (None, ENGLISH):
        return "english"
    return "basic-diacritics-characters" if language in UNSPACED else "basic-diacritics"


def not_latin(texts: Iterable[str]) -> str | None:
    """The script of the first text without Latin letters, where most of the texts with letters are such; else None."""
    scripts = [script for text in texts if (script := _script(text))]
    others = [script for script in scripts if script != "LATIN"]
    return others[0].title() if 2 * len(others) > len(scripts) else None


def accented(texts: Iterable[str]) -> list[str]:
    """Letters beside ASCII, the most frequent first, where most of the texts hold some, as English ones do not."""
    held = [{char for char in _letters(text) if not char.isascii()} for text in texts]
    found = Counter(char for chars in held for char in chars)
    return sorted(found, key=lambda char: (-found[char], char)) if 2 * sum(map(bool, held)) > len(held) else []


def _letters(text: str) -> list[str]:
    """Marks that are letters to Unicode, as some apostrophes, are none here."""
    if text.isascii():
        return list(filter(str.isalpha, text))
    return [char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) in _LETTERS]


def _script(text: str) -> str:
    """The first word of the names of most letters: ``LATIN``, ``DEVANAGARI``, ``CJK`` ...; "" without letters."""
    names = Counter("LATIN" if char.isascii() else unicodedata.name(char, "?").split()[0] for char in _letters(text))
    return names.most_common(1)[0][0] if names else ""
