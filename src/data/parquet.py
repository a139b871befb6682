"""Rows of parquet files, read with pyarrow alone and never more of the audio than is needed next.

The same rows ``datasets.load_dataset(folder, config, split=split)`` would give, without the seconds that importing it
takes and without a second copy of the audio in a cache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from src.data.rows import AudioReader
from src.errors import UserError

HELD: Final = 256 << 20  # bytes of encoded audio a reader keeps
_BUFFER: Final = 1 << 20  # bytes of a column read at a time, or a whole row group would be in memory


class ParquetRows:
    """The rows of a split's parquet files, in file order (:class:`src.data.rows.Rows`)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises a :class:`UserError` where a file is not parquet, or two differ in their columns."""
        self._paths = paths
        for path in paths:
            found = open_parquet(path).schema_arrow.names
            if set(found) != set(self.columns):
                problem = f"{path} has the columns {', '.join(found)}, but {paths[0].name} {', '.join(self.columns)}"
                raise UserError("dataset", problem, "Keep parquet files of one kind in a folder")

    @cached_property
    def columns(self) -> Collection[str]:
        """Names of the columns."""
        return list(open_parquet(self._paths[0]).schema_arrow.names)

    def __len__(self) -> int:
        return self._groups[-1].stop if self._groups else 0

    def strings(self, column: str) -> list[str]:
        """The values of a column as text."""
        values: list[str] = []
        for path in self._paths:
            with _readable(path):
                found = open_parquet(path).read(columns=[column]).column(column).to_pylist()
            values += ["" if value is None else str(value) for value in found]
        return values

    def label(self, row: int) -> str:
        """The row's number."""
        return f"row-{row:06d}"

    def reader(self, column: str, wanted: Sequence[int]) -> AudioReader:
        """Encoded audio of single rows."""
        return _Reader(self._groups, column, wanted)

    def files(self, wanted: Sequence[int]) -> list[Path]:  # noqa: ARG002 - the rows hold their audio
        """None."""
        return []

    @cached_property
    def _groups(self) -> list[_Group]:
        groups, start = [], 0
        for path in self._paths:
            metadata = open_parquet(path).metadata
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                stop = start + group.num_rows
                groups.append(_Group(path, number, start, stop, group.total_byte_size))
                start = stop
        return groups


@dataclass(frozen=True)
class _Group:
    """A row group: the unit in which a parquet file can be entered. It holds the rows from start to stop, in bytes."""

    path: Path
    number: int
    start: int
    stop: int
    size: int


class _Reader:
    """Audio of single rows; what was passed on the way to one is kept for a while, if it is wanted at all."""

    def __init__(self, groups: Sequence[_Group], column: str, wanted: Sequence[int]) -> None:
        self._groups, self._column, self._wanted = groups, column, frozenset(wanted)
        self._starts = [group.start for group in groups]
        self._held: dict[int, bytes | None] = {}  # oldest first
        self._bytes = 0
        self._scan: Iterator[Any] = iter(())
        self._next, self._group = 0, _Group(Path(), 0, 0, 0, 0)  # where the scan is
        self._lock = Lock()

    def __call__(self, row: int) -> bytes | None:
        if row not in self._wanted:
            raise KeyError(f"row {row} was not asked for when the reader was made")
        with self._lock:
            if row not in self._held:
                self._read_to(row)
            return self._held[row]

    def _read_to(self, row: int) -> None:
        """Goes on from where the last read ended if the row lies ahead in the same group, else from its group's start.

        A group is left at its end: neighbours are asked for next. One that is too large for that, at the row.
        """
        if not self._next <= row < self._group.stop:
            self._group = self._groups[bisect_right(self._starts, row) - 1]
            self._scan, self._next = _values(self._group, self._column), self._group.start
        stop = self._group.stop if self._group.size <= HELD // 4 else row + 1
        while self._next < stop:
            audio, passed = next(self._scan), self._next
            self._next += 1
            if passed in self._wanted and passed not in self._held:
                self._hold(passed, audio_bytes(audio.as_py()))

    def _hold(self, row: int, audio: bytes | None) -> None:
        """Keeps a clip, and drops the oldest others where there are too many bytes."""
        self._held[row] = audio
        self._bytes += len(audio or b"")
        while self._bytes > HELD and len(self._held) > 1:
            self._bytes -= len(self._held.pop(next(iter(self._held))) or b"")


def _values(group: _Group, column: str) -> Iterator[Any]:
    """The values of a row group, one by one: clips may be hours long."""
    file = open_parquet(group.path, buffer_size=_BUFFER, pre_buffer=False)
    with _readable(group.path):
        for batch in file.iter_batches(batch_size=1, row_groups=[group.number], columns=[column]):
            yield from batch.column(0)


def audio_bytes(value: Any) -> bytes | None:
    """The encoded file of an audio value: the hub's ``{bytes, path}``, or the bytes themselves."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """Opens a file; raises a :class:`UserError` where it is not parquet."""
    with _readable(path):
        return pq.ParquetFile(path, **options)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError("dataset", f"{path} is not a readable parquet file ({error})", "Download it again") from error
