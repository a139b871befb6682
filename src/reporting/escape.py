"""Names as text that a format does not take for its own signs: a data set may be called anything."""

from __future__ import annotations

import re
from typing import Final

import pandas as pd

_LATEX: Final = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_MARKDOWN: Final = re.compile(r"([\\`*{}\[\]<>|$~#!]|(?<!\w)_|_(?!\w))")  # an underscore within a word is just one
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def latex(text: str) -> str:
    """``text`` in LaTeX, on one line."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def markdown(text: str) -> str:
    """``text`` in a cell or a heading of GitHub's Markdown, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def spreadsheet(points: pd.DataFrame) -> pd.DataFrame:
    """With an apostrophe before text that a spreadsheet would run as a formula; numbers stay numbers."""

    def plain(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) and not _number(value) else value

    return points.rename(columns=plain).map(plain)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
