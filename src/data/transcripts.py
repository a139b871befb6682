"""What a model wrote for each utterance, and its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

LongForm = Literal["sequential", "segments", "truncated"]


@dataclass(frozen=True)
class Transcript:
    """One utterance as the model wrote it.

    Attributes:
        id: utterance id.
        reference: the corpus's transcript, as stored there.
        hypothesis: the model's transcript, before normalisation.
        seconds: length of the audio.
        tokens: number of generated tokens, end token not counted.
        capped: whether it was cut off at the family's limit on new tokens, in any of its windows.
        speaker: who speaks, where the corpus tells.
        long_form: what was done with audio longer than the model's window (see :mod:`src.decoding.longform`):
            ``sequential``, ``segments`` or ``truncated``; None where it fits.
        session: the recording this is a clip of, where its clips share one reference.
        position: places the clips of a session in order.
    """

    id: str
    reference: str
    hypothesis: str
    seconds: float
    tokens: int
    capped: bool
    speaker: str | None
    long_form: LongForm | None = None
    session: str | None = None
    position: int = 0


def save_transcripts(transcripts: Sequence[Transcript], path: Path) -> None:
    """One JSON object a line."""
    lines = [json.dumps(asdict(item), sort_keys=True) for item in transcripts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_transcripts(path: Path) -> list[Transcript]:
    """Reads what :func:`save_transcripts` wrote."""
    return [Transcript(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
