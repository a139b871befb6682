"""Who speaks the sandbox corpus: espeak-ng accents and variants, and the four recorded voices of flite."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Literal


@dataclass(frozen=True)
class Voice:
    """One speaker: ``name`` is an espeak-ng voice with its variant (``en-gb+f2``) or a flite voice (``slt``)."""

    engine: Literal["espeak-ng", "flite"]
    name: str


@dataclass(frozen=True)
class Delivery:
    """How one utterance is spoken: ``speed`` in words a minute, ``pitch`` on espeak-ng's scale of 0 to 99."""

    voice: Voice
    speed: int
    pitch: int


def _espeak(accents: str, variants: str) -> tuple[Voice, ...]:
    pairs = product(accents.split(), variants.split())
    return tuple(Voice("espeak-ng", f"{accent}+{variant}") for accent, variant in pairs)


FLITE = tuple(Voice("flite", name) for name in ("kal16", "awb", "rms", "slt"))
SEEN = _espeak(
    "en-us en-gb en-gb-x-rp en-gb-scotland en-029 en-gb-x-gbclan",
    "m1 m2 m3 m4 m5 m7 f1 f2 f3 f4 Alex Andy Annie Denis Gene Jacky Lee Mario Michael steph",
)
UNSEEN = (
    *_espeak("en-us-nyc en-gb-x-gbcwmd", "m1 m3 f2 f4 Andy Annie"),
    *_espeak("en-us en-gb en-gb-scotland", "m6 m8 f5 Alicia Mike john Diogo"),
)
FLITE_SHARE = 0.2


def deliver(rng: random.Random, unseen_share: float) -> Delivery:
    """Draw a voice, its speed and its pitch; ``unseen_share`` is the probability of a voice kept out of training."""
    if rng.random() < unseen_share:
        voice = rng.choice(UNSEEN)
    else:
        voice = rng.choice(FLITE if rng.random() < FLITE_SHARE else SEEN)
    return Delivery(voice, speed=rng.randint(150, 220), pitch=rng.randint(25, 75))
