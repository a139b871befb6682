"""Who says what: every sentence of the corpus, its split and its delivery, decided before any audio is made."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from tests.sandbox.making.grammar import distinct_sentences
from tests.sandbox.making.voices import Delivery, deliver

SEED = 20261120
SIZES = {"clean": 320, "other": 320, "calibration": 256, "dev_clean": 160, "dev_other": 160, "train": 60_000}
UNSEEN_SHARE = {"clean": 0.25, "other": 0.8, "calibration": 0.0, "dev_clean": 0.25, "dev_other": 0.8, "train": 0.0}


@dataclass(frozen=True)
class Line:
    """One utterance to be spoken; ``id`` is ``<split>-<number>`` and seeds whatever is random about it."""

    id: str
    text: str
    delivery: Delivery

    def rng(self, purpose: str) -> random.Random:
        """A random stream of this utterance's own, the same whichever others are made."""
        return random.Random(f"{SEED}/{self.id}/{purpose}")


@cache
def _sentences() -> tuple[str, ...]:
    sentences = distinct_sentences(sum(SIZES.values()), SEED)
    random.Random(SEED).shuffle(sentences)
    return tuple(sentences)


@cache
def script(split: str) -> tuple[Line, ...]:
    """The lines of one split. Splits are consecutive pieces of one shuffled list of distinct sentences."""
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(split)])
    lines = []
    for number, text in enumerate(_sentences()[start : start + SIZES[split]]):
        id_ = f"{split}-{number:05d}"
        rng = random.Random(f"{SEED}/{id_}/delivery")
        lines.append(Line(id_, text, deliver(rng, UNSEEN_SHARE[split])))
    return tuple(lines)
