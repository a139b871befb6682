"""Which clips of a data set are used: dropped references, the draw by seed, clips set aside for testing."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from src.data.cells import SPELLED_MISSING, own_text, text
from src.data.hub_folder import digest
from src.data.inventory import Clip, Inventory, inspected, load_inventory
from src.data.rows import Rows, ids, names, texts
from src.data.sources import dataset_identity, open_rows
from src.data.utterance import chosen
from src.errors import UserError
from src.machine.provenance import stamped
from src.settings import DatasetSettings
from src.storage.store import Entry, Store
from src.text.languages import accented, not_latin
from src.text.normalizers import Rules

log = logging.getLogger(__name__)

_SCHEMA: Final = 2  # raise when the meaning of a stored inventory changes


@dataclass(frozen=True)
class Selection:
    """Which clips of a data set are used.

    Attributes:
        dataset: the data set; its ``limit`` is not read here.
        n: how many clips are drawn at random; None for all.
        seed: of the draw.
        aside: a selection of the same data set whose clips are not to be drawn.
    """

    dataset: DatasetSettings
    n: int | None
    seed: int
    aside: Selection | None = None

    @property
    def rules(self) -> Rules:
        """By which references without words are told; how characters are made plain is left to scoring."""
        return Rules.of(self.dataset.language)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What the selected clips depend on; the normalizer's version is left out: it can change and texts stay stored.

        Raises:
            UserError: the data set is not there or cannot be read.
        """
        dataset = self.dataset
        drawn = {} if self.n is None else {"n": self.n, "seed": self.seed}
        aside = {} if self.aside is None else {"aside": self.aside.key}
        unused = {name for name in ("session", "split") if getattr(dataset.columns, name) is None}
        columns = dataset.columns.model_dump(exclude=unused)
        fields = {"columns": columns, "speaker_pattern": dataset.speaker_pattern, "rules": self.rules.kind}
        return {**dataset_identity(dataset), **fields, **drawn, **aside, **self._audio}

    @property
    def _audio(self) -> dict[str, str]:
        """Digest of audio that lies beside the data set, in files of its own."""
        if self.dataset.source is not None:
            return {}
        rows = open_rows(self.dataset)
        beside = rows.files(range(len(rows)))  # most forms have none, and need no draw here
        files = rows.files(_Draw(rows, self).rows) if beside else []
        return {"audio": digest(files)} if files else {}

    def inventory(self, store: Store | None) -> Inventory:
        """The clips and what is wrong with them: from the store, or inspected now.

        Raises:
            UserError: the data set cannot be read, has nothing to score, or nothing is left to draw from.
        """
        if store is None:
            return self._inspect()
        return load_inventory(self.entry(store).obtain(stamped(lambda folder: self._inspect().save(folder))))

    def entry(self, store: Store) -> Entry:
        """Where the inventory is stored. Raises UserError as :attr:`key` does."""
        return store.entry("corpus", {"schema": _SCHEMA, "normalizer": self.rules.name, **self.key})

    def _inspect(self) -> Inventory:
        rows = open_rows(self.dataset)
        draw = _Draw(rows, self)
        if self.rules.english:
            _require_english(self.dataset.name, [draw.texts[row] for row in draw.scored])
        log.info("%s: reading %d of %d clips", self.dataset.name, len(draw.rows), len(rows))
        dropped = [name for row, name in enumerate(draw.names) if row not in draw.scored]
        if dropped:
            log.info("%s: left out %d clips whose reference has nothing to score", self.dataset.name, len(dropped))
        missing = sum(reference.strip() in SPELLED_MISSING for reference in draw.texts)
        if missing:
            log.warning("%s: %d references are words that programs write for none (nan)", self.dataset.name, missing)
        read = rows.reader(draw.rows)
        found = {row: (size, sound) for row, size, sound in inspected(draw.rows, read)}
        clips = [
            Clip(
                row,
                draw.names[row],
                draw.texts[row],
                draw.speaker(row),
                found[row][0],
                **vars(found[row][1]),
                session=draw.sessions[row] or None,
            )
            for row in draw.rows
        ]
        return Inventory(len(rows), dropped, len(draw.aside), draw.named, clips)


class _Draw:
    """Ids and texts of a split, and the rows that a selection draws, in the order of their ids."""

    def __init__(self, rows: Rows, selection: Selection) -> None:
        self._rows, self._selection = rows, selection
        columns = selection.dataset.columns
        own = selection.dataset.source is None
        self.texts = texts(rows, columns.text, own_text if own else text)
        self.named = columns.id is not None and columns.id in rows.columns
        self.names = ids(rows, columns.id)
        self.scored = {row: None for row, reference in enumerate(self.texts) if selection.rules.is_scored(reference)}
        self.aside = frozenset(self._chosen(selection.aside, ()) if selection.aside is not None else ())
        self.rows = self._chosen(selection, self.aside)
        self._require_some()

    def speaker(self, row: int) -> str | None:
        """Who speaks, from the speaker column or by the pattern in the id."""
        return self._speakers[row] or None

    @cached_property
    def sessions(self) -> list[str]:
        """The recording that each row is a clip of, "" where it stands alone."""
        return self._labels(self._selection.dataset.columns.session) or [""] * len(self.names)

    @cached_property
    def _speakers(self) -> list[str]:
        dataset = self._selection.dataset
        labels = self._labels(dataset.columns.speaker)
        if labels is not None:
            return labels
        if dataset.speaker_pattern is None:
            return [""] * len(self.names)
        found = (re.match(dataset.speaker_pattern, name) for name in self.names)
        return [match.group(1) if match else "" for match in found]

    def _labels(self, column: str | None) -> list[str] | None:
        return names(self._rows, column) if column is not None and column in self._rows.columns else None

    def _chosen(self, selection: Selection, without: Collection[int]) -> list[int]:
        left = [row for row in self.scored if row not in without]
        return [left[index] for index in chosen([self.names[row] for row in left], selection.n, selection.seed)]

    def _require_some(self) -> None:
        name = self._selection.dataset.name
        if not self.scored:
            problem = f"none of the {len(self.texts)} references of {name} has words left after normalisation"
            raise UserError("dataset", problem, "Check the text column of this data set")
        if not self.rows:
            problem = f"all {len(self.aside)} clips of {name} are in the test set, which leaves none to calibrate on"
            remedy = "Calibrate on another data set, or limit the test set so that some clips are left"
            raise UserError("dataset", problem, remedy)
        n = self._selection.n
        if n is not None and n > len(self.rows):
            log.info("%s: %d clips are asked for, but it has %d: all are used", name, n, len(self.rows))


def _require_english(name: str, references: list[str]) -> None:
    if script := not_latin(references):
        problem = f"most references of {name} are written in {script} letters, which rules for English take apart"
        remedy = "Set it to the code of their language, as Whisper has it: hi, zh, ru ..."
        raise UserError("dataset.language", problem, remedy)
    if letters := accented(references):
        told = "%s: most references hold letters with accents (%s), which rules for English drop. "
        remedy = "Are they in another language? Then name it in dataset.language"
        log.warning(told + remedy, name, " ".join(letters[:5]))
