"""Rows of an arrow table of the ``datasets`` library: memory-mapped, audio left encoded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from src.data.parquet import audio_bytes
from src.data.rows import AudioReader


class ArrowRows:
    """The rows of a ``datasets.Dataset`` (:class:`src.data.rows.Rows`)."""

    def __init__(self, table: Any) -> None:
        from datasets import Audio

        for name, feature in table.features.items():
            if isinstance(feature, Audio):
                table = table.cast_column(name, Audio(decode=False))
        self._table = table

    @property
    def columns(self) -> Collection[str]:
        """Names of the columns."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return len(self._table)

    def strings(self, column: str) -> list[str]:
        """The values of a column as text."""
        return ["" if value is None else str(value) for value in self._table.select_columns([column])[column][:]]

    def label(self, row: int) -> str:
        """The row's number."""
        return f"row-{row:06d}"

    def reader(self, column: str, wanted: Sequence[int]) -> AudioReader:  # noqa: ARG002 - any row is as near
        """Encoded audio of single rows."""
        table = self._table.select_columns([column])
        return lambda row: audio_bytes(table[row][column])

    def files(self, wanted: Sequence[int]) -> list[Path]:  # noqa: ARG002 - the rows hold their audio
        """None."""
        return []
