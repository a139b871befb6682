"""Text as if typed on a plain keyboard, for rules that know an apostrophe as ``'`` alone and nothing invisible.

Word processors, web pages and PDF files put typographic apostrophes, soft hyphens, byte order marks, zero-width spaces,
marks of direction, full-width letters and ligatures into transcripts. Some of these Whisper's rules read as they
should; others become letters of a word, or keep a contraction from being seen.
"""

from __future__ import annotations

import unicodedata
from typing import Final

import regex

_APOSTROPHES: Final = "\u2018\u2019\u201b\u2032\u2035\u02b9\u02bb\u02bc\u02bd\u02c8\u055a\ua78c\uff07\u00b4\u0060"
_BREAK: Final = "\u200b"  # zero-width space: a word's end in Khmer or Thai, a web page's leftover in English
_JOINERS: Final = "\u200c\u200d"  # parts of the spelling in Persian and in India's scripts
_TYPED: Final = str.maketrans(dict.fromkeys(_APOSTROPHES, "'"))
_INVISIBLE: Final = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cc}--[\s\x1C-\x1F]]", regex.VERSION1)


def plain(text: str, *, english: bool) -> str:
    """The text with plain apostrophes, compatibility forms resolved (NFKC), and without invisible characters.

    Outside of English, joiners stay and a zero-width space ends a word. Fractions (``½``) are kept off the digits
    before them. Of ASCII, control characters and backquotes alone are changed.
    """
    text = _INVISIBLE.sub(lambda found: _kept(found[0], english), text.translate(_TYPED))
    if text.isascii():
        return text
    spaced = "".join(f" {char}" if unicodedata.decomposition(char).startswith("<fraction>") else char for char in text)
    return unicodedata.normalize("NFKC", spaced)


def _kept(char: str, english: bool) -> str:
    if english:
        return ""
    return " " if char == _BREAK else char if char in _JOINERS else ""
