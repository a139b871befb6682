"""Rows of parquet files, read with pyarrow alone and never more of the audio than is needed next.

The same rows ``datasets.load_dataset(folder, config, split=split)`` would give, without the seconds that importing it
takes and without a second copy of the audio in a cache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from src.data.columns import class_labels, is_text, paths_of, plain, require_flat
from src.data.rows import AudioReader, audio, audio_files, numbered
from src.errors import UserError

HELD: Final = 256 << 20  # bytes of encoded audio a reader keeps
_BUFFER: Final = 1 << 20  # bytes of a column read at a time, or a whole row group would be in memory


class ParquetRows:
    """The rows of a split's parquet files, in file order (:class:`src.data.rows.Rows`)."""

    def __init__(self, paths: Sequence[Path], audio: str, published: bool = False) -> None:
        """Raises a :class:`UserError` where a file is not parquet, or two differ in their columns.

        Args:
            paths: the files.
            audio: name of the column of audio.
            published: whether paths beside the sound mean nothing here; else they are relative to the files.
        """
        self._paths, self._audio, self._published = paths, audio, published
        for path in paths:
            found = open_parquet(path).schema_arrow.names
            if set(found) != set(self.columns):
                problem = f"{path} has the columns {', '.join(found)}, but {paths[0].name} {', '.join(self.columns)}"
                raise UserError("dataset", problem, "Keep parquet files of one kind in a folder")

    @cached_property
    def columns(self) -> Collection[str]:
        return list(open_parquet(self._paths[0]).schema_arrow.names)

    def __len__(self) -> int:
        return self._groups[-1].stop if self._groups else 0

    def values(self, column: str) -> Sequence[Any]:
        values: list[Any] = []
        for path in self._paths:
            file = open_parquet(path)
            labels = class_labels(file.schema_arrow.metadata, column)
            require_flat(file.schema_arrow.field(column).type, f"{path}, column {column}")
            with _readable(path):
                values += plain(file.read(columns=[column]).column(column), labels)
        return values

    def where(self, row: int) -> str:
        path = self._group(row).path
        return f"{path}, row {row - next(group.start for group in self._groups if group.path == path)}"

    def label(self, row: int) -> str:
        return self._named.get(row) or numbered(row)

    def audio_names(self) -> Sequence[str | None]:
        found: list[str | None] = []
        for path in self._paths:
            file = open_parquet(path)
            kind = file.schema_arrow.field(self._audio).type
            leaf = f"{self._audio}.path" if pa.types.is_struct(kind) else self._audio
            with _readable(path):
                told = is_text(kind) or (pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)
                names = paths_of(file.read(columns=[leaf]).column(self._audio)) if told else []
            found += names or [None] * file.metadata.num_rows
        return found

    def reader(self, wanted: Sequence[int]) -> AudioReader:
        return _RowReader(self._groups, self._audio, wanted, self._encoded)

    def files(self, wanted: Sequence[int]) -> list[Path]:
        rows = [row for row in wanted if row in self._named]
        return list(self._files(rows).values())

    def _files(self, rows: Sequence[int]) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for folder, part in groupby(rows, self._folder):
            found |= audio_files(self, self._audio, folder, ((row, self._named[row]) for row in part))
        return found

    def _encoded(self, row: int, value: Any) -> bytes | None:
        return audio(self, self._audio, self._folder(row), row, value)

    def _folder(self, row: int) -> Path | None:
        return None if self._published else self._group(row).path.parent

    def _group(self, row: int) -> _Group:
        return self._groups[bisect_right(self._starts, row) - 1]

    @cached_property
    def _starts(self) -> list[int]:
        return [group.start for group in self._groups]

    @cached_property
    def _named(self) -> dict[int, str]:
        """The paths of rows that hold no sound. Sound is not read to know that, as the file counts its nulls."""
        found: dict[int, str] = {}
        for path, groups in groupby(self._groups, lambda group: group.path):
            file = open_parquet(path)
            for group in groups:
                if not _holds_sound(file, group.number, self._audio):
                    values = enumerate(_values(group, self._audio), start=group.start)
                    found |= {row: name for row, value in values if (name := _path(value))}
        return found

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


def _holds_sound(file: pq.ParquetFile, group: int, column: str) -> bool:
    """Whether no row of a group can name a file instead of holding its sound."""
    kind = file.schema_arrow.field(column).type
    if not pa.types.is_struct(kind):
        return not is_text(kind)
    if kind.get_field_index("path") < 0:
        return True
    leaves = file.metadata.row_group(group)
    for leaf in map(leaves.column, range(leaves.num_columns)):
        if leaf.path_in_schema == f"{column}.bytes":
            statistics = leaf.statistics
            return statistics is not None and statistics.has_null_count and not statistics.null_count
    return False


def _path(value: Any) -> str | None:
    """The path of an audio value that holds no sound."""
    if not pa.types.is_struct(value.type):
        found = value.as_py()
    else:
        held = [name for name in ("bytes", "array") if value.type.get_field_index(name) >= 0 and value.is_valid]
        found = None if not value.is_valid or any(value[name].is_valid for name in held) else value["path"].as_py()
    return found if isinstance(found, str) else None


@dataclass(frozen=True)
class _Group:
    """A row group: the unit in which a parquet file can be entered. It holds the rows from start to stop, in bytes."""

    path: Path
    number: int
    start: int
    stop: int
    size: int


class _RowReader:
    """Audio of single rows; what was passed on the way to one is kept for a while, if it is wanted at all."""

    def __init__(
        self,
        groups: Sequence[_Group],
        column: str,
        wanted: Sequence[int],
        encoded: Callable[[int, Any], bytes | None],
    ) -> None:
        self._groups, self._column, self._wanted, self._encoded = groups, column, frozenset(wanted), encoded
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
            value, passed = next(self._scan), self._next
            self._next += 1
            if passed in self._wanted and passed not in self._held:
                self._hold(passed, self._encoded(passed, value.as_py()))

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


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """Opens a file; raises a :class:`UserError` where it is not parquet."""
    with _readable(path):
        return pq.ParquetFile(path, **options)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError("dataset", f"{path} is not a readable parquet file ({error})", "Download it again") from error
