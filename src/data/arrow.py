"""Rows of an arrow table of the ``datasets`` library: memory-mapped, audio left encoded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from src.data.columns import is_text, paths_of, plain, require_flat
from src.data.rows import AudioReader, audio, audio_files, numbered


class ArrowRows:
    """The rows of a ``datasets.Dataset`` (:class:`src.data.rows.Rows`)."""

    def __init__(self, table: Any, audio: str, where: str, folder: Path | None) -> None:
        """A format that was set on the table is left aside, as it is no part of the data.

        Args:
            table: the data set.
            audio: name of the column of audio.
            where: what errors call it.
            folder: what paths in it are relative to; None for a published set.
        """
        from datasets import Audio

        table = table.with_format(None)
        for name, feature in table.features.items():
            if isinstance(feature, Audio):
                table = table.cast_column(name, Audio(decode=False))
        self._table, self._audio, self._where, self._folder = table, audio, where, folder

    @property
    def columns(self) -> Collection[str]:
        return list(self._table.column_names)

    def __len__(self) -> int:
        return len(self._table)

    def values(self, column: str) -> Sequence[Any]:
        found = self._stored(column)
        require_flat(found.type, f"{self._where}, column {column}")
        return plain(found, getattr(self._table.features[column], "names", None))

    def where(self, row: int) -> str:
        return f"{self._where}, row {row}"

    def label(self, row: int) -> str:
        return self._named.get(row) or numbered(row)

    def audio_names(self) -> Sequence[str | None]:
        return paths_of(self._stored(self._audio)) or [None] * len(self)

    def reader(self, wanted: Sequence[int]) -> AudioReader:  # noqa: ARG002 - any row is as near
        table = self._table.select_columns([self._audio])
        return lambda row: audio(self, self._audio, self._folder, row, table[row][self._audio])

    def files(self, wanted: Sequence[int]) -> list[Path]:
        named = ((row, self._named[row]) for row in wanted if row in self._named)
        return list(audio_files(self, self._audio, self._folder, named).values())

    def _stored(self, column: str) -> pa.ChunkedArray:
        return self._table.with_format("arrow").select_columns([column])[:][column]

    @cached_property
    def _named(self) -> dict[int, str]:
        """The paths of rows that hold no sound."""
        found = self._stored(self._audio)
        paths = paths_of(found)
        if paths and not is_text(found.type):
            for held in ("bytes", "array"):
                if found.type.get_field_index(held) >= 0:
                    without = pc.is_null(pc.struct_field(found, held)).to_pylist()
                    paths = [path if alone else None for path, alone in zip(paths, without, strict=True)]
        return {row: path for row, path in enumerate(paths) if path}
