"""One labelled clip, and the reproducible choice of a few among many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from src.data.audio import SAMPLING_RATE, AudioError, Waveform, decode
from src.errors import UserError


@dataclass(frozen=True)
class Utterance:
    """A clip as the data set stores it; audio stays where it is, and encoded, until it is asked for.

    Attributes:
        id: unique in its split.
        text: the reference as published, not normalised.
        samples: length of :meth:`waveform`.
        audio: the encoded file (wav, flac, ogg, mp3), or what reads it.
        speaker: who speaks, where the corpus tells.
        session: the recording this is a clip of, where its clips share one reference.
        position: places the clips of a session in order.
        window: clips of one window lie together on disk and are read together; a corpus is evaluated window by window.
    """

    id: str
    text: str
    samples: int
    audio: bytes | Callable[[], bytes | None] = field(repr=False)
    speaker: str | None = None
    session: str | None = None
    position: int = 0
    window: int = 0

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLING_RATE

    def encoded(self) -> bytes:
        """The audio file's bytes.

        Raises:
            UserError: they are gone; names this utterance.
        """
        found = self.audio if isinstance(self.audio, bytes) else self.audio()
        if found is None:
            raise undecodable(self.id, AudioError("missing", "the row holds no audio bytes"))
        return found

    def waveform(self) -> Waveform:
        """Decodes the audio: float32 ``[samples]``, mono, 16 kHz.

        Raises:
            UserError: the audio is damaged, or not what was inspected; names this utterance.
        """
        try:
            waveform = decode(self.encoded())
        except AudioError as error:
            raise undecodable(self.id, error) from error
        if len(waveform) != self.samples:
            lengths = f"{len(waveform)} samples, not {self.samples} as when it was inspected"
            raise undecodable(self.id, AudioError("changed", lengths))
        return waveform


def undecodable(utterance_id: str, error: Exception) -> UserError:
    """The error of an utterance whose audio cannot be read."""
    problem = f"the audio of utterance {utterance_id!r} cannot be decoded ({error})"
    return UserError("dataset", problem, "Repair or remove this clip, or download the data set again")


def chosen(ids: Sequence[str], n: int | None, seed: int) -> list[int]:
    """Positions of a uniformly random ``n`` of ``ids`` (all for None), in the order of the ids.

    Each id's rank is a hash of seed and id, so the choice does not depend on the order of the ids or on a library's
    version, and a larger ``n`` contains the smaller one.
    """
    ranked = sorted(range(len(ids)), key=lambda index: hashlib.sha256(f"{seed}:{ids[index]}".encode()).digest())
    return sorted(ranked[:n], key=lambda index: ids[index])
