"""One pass over a selection of clips: what each is, how long, which recording, and what is wrong with it.

The pass reads every selected clip once, in the order in which the clips lie on disk, and holds a few at a time. It is
stored, so that a corpus is inspected once and its audio is not read again before it is recognised.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from src.data.audio import Sound, inspect
from src.data.rows import AudioReader
from src.machine.progress import progress

log = logging.getLogger(__name__)

SUMMARY, CLIPS = "summary.json", "clips.jsonl"
_WORKERS = 8  # at most, and twice as many encoded clips in memory


@dataclass(frozen=True)
class Clip:
    """One clip of the selection.

    Attributes:
        row: in the data set.
        id: unique in its split.
        text: the reference as published.
        speaker: who speaks, where the corpus tells.
        size: of the encoded audio, in bytes.
        samples: at 16 kHz.
        sha256: of the sound: see :class:`src.data.audio.Sound`.
        problem: why the audio is of no use, ``"kind: detail"``, or None.
        session: the recording this is a clip of, where its clips share one reference.
    """

    row: int
    id: str
    text: str
    speaker: str | None
    size: int
    samples: int
    sha256: str
    problem: str | None
    session: str | None = None


@dataclass(frozen=True)
class Inventory:
    """The clips of a selection in the order of their ids, and what was left out before the draw.

    Attributes:
        total: rows of the split.
        dropped: ids of all references of the split that have nothing to score.
        set_aside: clips of the split that were kept for testing.
        named: whether the ids are the corpus's own.
        clips: all that were drawn, usable or not.
    """

    total: int
    dropped: list[str]
    set_aside: int
    named: bool
    clips: list[Clip]

    def save(self, folder: Path) -> None:
        """Writes :data:`SUMMARY` and :data:`CLIPS`."""
        summary = {name: value for name, value in self.__dict__.items() if name != "clips"}
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        with (folder / CLIPS).open("w", encoding="ascii") as file:
            file.writelines(json.dumps(asdict(clip)) + "\n" for clip in self.clips)


def load_inventory(folder: Path) -> Inventory:
    """Reads what :meth:`Inventory.save` wrote."""
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    lines = (folder / CLIPS).read_text(encoding="ascii").splitlines()
    return Inventory(**summary, clips=[Clip(**json.loads(line)) for line in lines])


def inspected(rows: Sequence[int], read: AudioReader) -> Iterator[tuple[int, int, Sound]]:
    """Row, encoded bytes and sound of each of ``rows``, in ascending order of the rows."""
    ordered, workers = sorted(rows), min(_WORKERS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(workers) as threads:
        for start in progress(range(0, len(ordered), 2 * workers), f"inspect, {2 * workers} clips at a time"):
            part = ordered[start : start + 2 * workers]
            audio = [read(row) for row in part]
            for row, encoded, sound in zip(part, audio, threads.map(inspect, audio), strict=True):
                yield row, len(encoded or b""), sound
