"""One labelled clip, and the reproducible choice of a few among many."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from src.data.audio import SAMPLING_RATE, AudioError, Waveform, decode
from src.errors import UserError


@dataclass(frozen=True)
class Utterance:
    """A clip as the data set stores it; audio stays encoded until it is asked for.

    Attributes:
        id: unique in its split.
        text: the reference as published, not normalised.
        samples: length of :meth:`waveform`.
        audio: the encoded file (wav, flac, ogg, mp3).
        speaker: who speaks, where the corpus tells.
    """

    id: str
    text: str
    samples: int
    audio: bytes = field(repr=False)
    speaker: str | None = None

    @property
    def seconds(self) -> float:
        """Duration of the audio."""
        return self.samples / SAMPLING_RATE

    def waveform(self) -> Waveform:
        """Decodes the audio: float32 ``[samples]``, mono, 16 kHz.

        Raises:
            UserError: the audio is damaged; names this utterance.
        """
        try:
            return decode(self.audio)
        except AudioError as error:
            raise undecodable(self.id, error) from error


def undecodable(utterance_id: str, error: Exception) -> UserError:
    """The error of an utterance whose audio cannot be read."""
    problem = f"the audio of utterance {utterance_id!r} cannot be decoded ({error})"
    return UserError("dataset", problem, "Repair or remove this clip, or download the data set again")


def draw(utterances: Sequence[Utterance], n: int, seed: int) -> list[Utterance]:
    """A random ``n`` of the utterances (all, where there are fewer), in the order of their ids; see :func:`chosen`."""
    keep = chosen([utterance.id for utterance in utterances], n, seed)
    return [utterances[index] for index in keep]


def chosen(ids: Sequence[str], n: int | None, seed: int) -> list[int]:
    """Positions of a uniformly random ``n`` of ``ids`` (all for None), in the order of the ids.

    Each id's rank is a hash of seed and id, so the choice does not depend on the order of the ids or on a library's
    version, and a larger ``n`` contains the smaller one.
    """
    ranked = sorted(range(len(ids)), key=lambda index: _rank(ids[index], seed))
    return sorted(ranked[:n], key=lambda index: ids[index])


def _rank(utterance_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{utterance_id}".encode()).digest()
