"""A user's list of audio files: one JSON object a line, or CSV with a header.

An entry has an audio file (its path, relative to the list) and a text, and where there are such, an id and a speaker.
A mistake is an error that names file and line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from src.data import rows
from src.data.cells import ABSENT
from src.data.entries import read_entries
from src.errors import UserError

FIELD: Final = "dataset.root"
SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".tsv")


class ManifestRows:
    """The entries of a manifest (:class:`src.data.rows.Rows`)."""

    def __init__(self, path: Path, audio: str) -> None:
        """Reads the list; ``audio`` names the column of paths.

        Raises:
            UserError: the list cannot be read, is empty, or an entry has no audio.
        """
        self._path, self._column = path, audio
        self._entries = read_entries(path, audio)
        if not self._entries:
            raise UserError(FIELD, f"{path} has no entries", "Give it one entry an audio file")
        self.columns: Collection[str] = sorted({name for _, entry in self._entries for name in entry})
        rows.check_columns(self.columns, [audio], str(path))
        self._audio = [entry.get(audio) for _, entry in self._entries]
        written = (value.get("path") if isinstance(value, dict) else value for value in self._audio)
        self._names = [name if isinstance(name, str) else None for name in written]
        self._require_audio()
        self._files = rows.audio_files(self, audio, path.parent, enumerate(self._audio))

    def __len__(self) -> int:
        return len(self._entries)

    def values(self, column: str) -> Sequence[Any]:
        """The values of a field, :data:`~src.data.cells.ABSENT` where an entry lacks it."""
        return [entry.get(column, ABSENT) for _, entry in self._entries]

    def where(self, row: int) -> str:
        return f"{self._path}, {self._entries[row][0]}"

    def label(self, row: int) -> str:
        """The audio's path as the manifest has it; where the entry holds the sound itself, the row's number."""
        return self.audio_names()[row] or rows.numbered(row)

    def audio_names(self) -> Sequence[str | None]:
        return self._names

    def reader(self, wanted: Sequence[int]) -> rows.AudioReader:  # noqa: ARG002 - any file is as near
        return lambda row: rows.audio(self, self._column, self._path.parent, row, self._audio[row])

    def files(self, wanted: Sequence[int]) -> list[Path]:
        return [self._files[row] for row in wanted if row in self._files]

    def _require_audio(self) -> None:
        without = [row for row, (_, entry) in enumerate(self._entries) if entry.get(self._column) in (None, "")]
        if without:
            more = f", nor have {len(without) - 1} other entries" if len(without) > 1 else ""
            problem = f"{self.where(without[0])}: it has no {self._column!r}{more}"
            raise UserError(FIELD, problem, "Give every entry the path of its audio file, or remove it")


def manifests(folder: Path) -> Iterator[Path]:
    """The files of a folder that may be manifests; hidden ones are what systems leave beside files."""
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return (path for path in files if path.suffix.lower() in SUFFIXES and path.is_file())
