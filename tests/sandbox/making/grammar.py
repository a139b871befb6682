"""Sentences of the sandbox corpus, drawn from the context-free grammar in ``grammar.txt``."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

GRAMMAR_FILE = Path(__file__).with_name("grammar.txt")
START = "sentence"
MIN_WORDS, MAX_WORDS = 3, 9


@dataclass(frozen=True)
class Grammar:
    """A context-free grammar: every symbol (lower case) maps to its forms, a form being a tuple of tokens."""

    forms: dict[str, tuple[tuple[str, ...], ...]]

    @classmethod
    def read(cls, path: Path = GRAMMAR_FILE) -> Grammar:
        """Parse ``name: word word`` (a category) and ``name -> form | form`` (a rule) lines."""
        forms: dict[str, tuple[tuple[str, ...], ...]] = {}
        for line in path.read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            if " -> " in line:
                name, right = line.split(" -> ")
                forms[name] = tuple(tuple(form.split()) for form in right.split("|"))
            else:
                name, right = line.split(":")
                forms[name] = tuple((word,) for word in right.split())
        return cls(forms)

    def words(self) -> frozenset[str]:
        """Every terminal word a sentence can contain."""
        tokens = {token for forms in self.forms.values() for form in forms for token in form}
        return frozenset(token for token in tokens if token.islower()) | {"a", "an"}

    def sentence(self, rng: random.Random) -> str:
        """One sentence of 3 to 9 words, lower case, without punctuation."""
        while True:
            words = self._expand(START, rng)
            if MIN_WORDS <= len(words) <= MAX_WORDS:
                return " ".join(_articles(words))

    def _expand(self, symbol: str, rng: random.Random) -> list[str]:
        words: list[str] = []
        for token in rng.choice(self.forms[symbol]):
            words += [token] if token == "A" or token.islower() else self._expand(token.lower(), rng)
        return words


def _articles(words: list[str]) -> list[str]:
    """Write the placeholder ``A`` as "an" before a vowel and as "a" elsewhere."""
    following = [*words[1:], ""]
    exceptions = ("useful", "uni", "one")
    return [
        word if word != "A" else "an" if after[:1] in tuple("aeiou") and not after.startswith(exceptions) else "a"
        for word, after in zip(words, following, strict=True)
    ]


def distinct_sentences(count: int, seed: int, candidates: int = 3) -> list[str]:
    """``count`` sentences, no two alike, in the order drawn.

    Each is the one, of ``candidates`` drawn, that holds the word seen least so far: rare words stay learnable.
    """
    grammar, rng = Grammar.read(), random.Random(seed)
    drawn: dict[str, None] = {}
    seen: Counter[str] = Counter()
    while len(drawn) < count:
        options = [grammar.sentence(rng) for _ in range(candidates)]
        choice = min(options, key=lambda text: min(seen[word] for word in text.split()))
        if choice not in drawn:
            drawn[choice] = None
            seen.update(choice.split())
    return list(drawn)
