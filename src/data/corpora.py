"""Test and calibration sets: what is drawn from a data set, inspected once, and then read clip by clip."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, Literal

from src.data.audio import SAMPLING_RATE
from src.data.inventory import Clip, Inventory
from src.data.parquet import HELD
from src.data.selection import Selection
from src.data.sources import open_rows
from src.data.utterance import Utterance as Utterance
from src.errors import UserError
from src.settings import DatasetSettings
from src.storage.store import Store

log = logging.getLogger(__name__)

OnBadAudio = Literal["fail", "skip"]

_WINDOW: Final = HELD // 2  # bytes of encoded audio in a window, which a reader can hold
_NAMED: Final = 5  # ids shown in an error


class Corpus:
    """The usable clips of a selection."""

    def __init__(self, selection: Selection, inventory: Inventory, on_bad_audio: OnBadAudio) -> None:
        """Raises a :class:`UserError` where clips are bad and may not be skipped, or none is usable."""
        self._selection, self._inventory = selection, inventory
        self.bad = {clip.id: problem for clip in inventory.clips if (problem := self._problem(clip)) is not None}
        self.clips = [clip for clip in inventory.clips if clip.id not in self.bad]
        if self.bad and (on_bad_audio == "fail" or not self.clips):
            raise self._bad_audio(on_bad_audio)
        if self.bad:
            log.warning("%s: left out %d clips with bad audio: %s", selection.dataset.name, len(self.bad), self._kinds)

    def utterances(self) -> list[Utterance]:
        """The clips in the order of their ids; their audio is read when it is asked for.

        What was read lately is kept as long as these utterances are.
        """
        rows = open_rows(self.dataset)
        read = rows.reader([clip.row for clip in self.clips])
        windows = dict(_windows(self.clips))
        return [
            Utterance(
                clip.id,
                clip.text,
                clip.samples,
                partial(read, clip.row),
                clip.speaker,
                clip.session,
                clip.row,
                windows[clip.row],
            )
            for clip in self.clips
        ]

    @property
    def dataset(self) -> DatasetSettings:
        return self._selection.dataset

    @property
    def dropped(self) -> list[str]:
        """Ids of the clips whose reference has nothing to score."""
        return self._inventory.dropped

    @property
    def report(self) -> dict[str, Any]:
        """What a record says of the data: how much was used, and each clip that was not, with the reason."""
        found = self._inventory
        left = found.total - len(found.dropped) - found.set_aside
        speakers = {clip.speaker for clip in self.clips if clip.speaker is not None}
        return {
            "utterances": len(self.clips),
            "hours": round(sum(clip.samples for clip in self.clips) / SAMPLING_RATE / 3600, 4),
            "speakers": len(speakers) or None,
            "subset": len(found.clips) < left,
            "drawn": {"clips": len(found.clips), "of": left, "seed": self._selection.seed},
            "dropped_references": {"count": len(found.dropped), "ids": found.dropped},
            "set_aside_for_testing": found.set_aside,
            "bad_audio": {"count": len(self.bad), "kinds": self._kinds, "clips": self.bad},
        }

    @property
    def _kinds(self) -> dict[str, int]:
        return dict(sorted(Counter(problem.partition(":")[0] for problem in self.bad.values()).items()))

    def _problem(self, clip: Clip) -> str | None:
        limit = self._selection.dataset.max_seconds
        seconds = clip.samples / SAMPLING_RATE
        if clip.problem is None and limit is not None and seconds > limit:
            return f"over-long: it lasts {seconds:.1f} s, more than dataset.max_seconds={limit:g}"
        return clip.problem

    def _bad_audio(self, policy: OnBadAudio) -> UserError:
        shown = "; ".join(f"{name!r} ({problem})" for name, problem in list(self.bad.items())[:_NAMED])
        more = f"; and {len(self.bad) - _NAMED} more" if len(self.bad) > _NAMED else ""
        every = f"{len(self.bad)} of {len(self._inventory.clips)} clips of {self._selection.dataset.name}"
        remedy = "Repair or remove them"
        if policy == "fail":
            remedy += ", or leave them out with on_bad_audio=skip, which the record then tells"
        return UserError("dataset", f"{every} have audio that is of no use: {shown}{more}", remedy)

    def overlap(self, other: Corpus) -> dict[str, str]:
        """Clips of this corpus that ``other`` holds too: id, and whether its ``id`` or its ``audio`` says so."""
        names = {clip.id for clip in other.clips} if self._inventory.named and other._inventory.named else set()
        sounds = {clip.sha256 for clip in other.clips}
        return {
            clip.id: "audio" if clip.sha256 in sounds else "id"
            for clip in self.clips
            if clip.sha256 in sounds or clip.id in names
        }


def _windows(clips: list[Clip]) -> Iterator[tuple[int, int]]:
    """Row and window of every clip: consecutive rows share one as long as their audio is not too large."""
    window, filled = 0, 0
    for clip in sorted(clips, key=lambda clip: clip.row):
        if filled and filled + clip.size > _WINDOW:
            window, filled = window + 1, 0
        filled += clip.size
        yield clip.row, window


def open_corpus(selection: Selection, store: Store | None, on_bad_audio: OnBadAudio) -> Corpus:
    """The selected clips, inspected; the inventory is kept in ``store`` where there is one.

    References that are empty after normalisation, or marked as not scored, are dropped and reported.

    Raises:
        UserError: absent data, config, split or column, no network, nothing left to score, or bad audio that may not
            be skipped.
    """
    return Corpus(selection, selection.inventory(store), on_bad_audio)


def require_disjoint(calibration: Corpus, test: Corpus) -> None:
    """Checks that no clip is in both, by id and by the sound itself.

    Ids are compared where both corpora have ids of their own.

    Raises:
        UserError: some are; says how many.
    """
    shared = calibration.overlap(test)
    if not shared:
        return
    shown = ", ".join(f"{name!r} (same {what})" for name, what in list(shared.items())[:_NAMED])
    problem = f"{len(shared)} of {len(calibration.clips)} calibration clips are in the test set too: {shown}"
    remedy = "Choose other clips with dataset@calib.dataset=NAME, or a folder of your own, or remove these from it"
    raise UserError("calib.dataset", problem, remedy)
