"""A corpus in a folder of the hub's layout: parquet files per config and split, listed by the README's header.

Read with pyarrow alone: the same files ``datasets.load_dataset(folder, config, split=split)`` would read, without the
seconds that importing it takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from src.data.rows import check_columns
from src.digest import sha256_once
from src.errors import UserError, did_you_mean

_BATCH = 64  # rows of audio decoded from parquet at a time


class FolderRows:
    """The rows of a split's parquet files, in file order (:class:`src.data.rows.Rows`)."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        for file in files:
            check_columns(_open(file).schema_arrow.names, str(file))

    def strings(self, column: str) -> list[str]:
        """The values of a text column."""
        values: list[str] = []
        for file in self.files:
            found = _open(file).read(columns=[column]).column(column).to_pylist()
            values += ["" if value is None else str(value) for value in found]
        return values

    def audio(self, wanted: Sequence[int]) -> dict[int, bytes | None]:
        """Encoded audio by row; row groups without a wanted row are not read."""
        keep = set(wanted)
        return {row: audio["bytes"] if audio else None for row, audio in self._audio_of(keep)}

    def _audio_of(self, keep: set[int]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        start = 0
        for file in self.files:
            parquet = _open(file)
            for group in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(group).num_rows
                if not keep.isdisjoint(range(start, stop)):
                    yield from _group_audio(parquet, group, start, keep)
                start = stop


def _group_audio(
    parquet: pq.ParquetFile, group: int, start: int, keep: set[int]
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for batch in parquet.iter_batches(batch_size=_BATCH, row_groups=[group], columns=["audio"]):
        column = batch.column("audio")
        for offset in range(len(column)):
            if start + offset in keep:
                yield start + offset, column[offset].as_py()
        start += len(column)


class Layout:
    """Configs and splits a folder offers, and their files.

    The README's ``configs`` header decides where there is one; otherwise ``<config>/<split>-*.parquet``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def patterns(self) -> dict[str, dict[str, list[str]]]:
        """``{config: {split: [glob relative to the folder, ...]}}``."""
        return _declared(self.folder / "README.md") or _found(self.folder)

    def files(self, config: str, split: str) -> list[Path]:
        """The split's parquet files in name order.

        Raises:
            UserError: no such config or split, or its files are absent; lists what is there.
        """
        if not self.patterns:
            problem = f"{self.folder} has neither a README with `configs` nor files <config>/<split>-*.parquet"
            raise UserError("dataset.root", problem, "Name the folder that `hf download --local-dir` filled")
        splits = self.patterns.get(config)
        if splits is None:
            problem = f"{self.folder} has no config {config!r}"
            raise UserError("dataset.config", problem, did_you_mean(config, self.patterns))
        if split not in splits:
            problem = f"config {config!r} of {self.folder} has no split {split!r}"
            raise UserError("dataset.split", problem, did_you_mean(split, splits))
        files = sorted({file for pattern in splits[split] for file in self.folder.glob(pattern)})
        if not files:
            problem = f"no file matches {', '.join(splits[split])} in {self.folder}"
            raise UserError("dataset.split", problem, "Download the data set again; its README lists these files")
        return files


def digest(files: Sequence[Path]) -> str:
    """SHA-256 of the files' bytes in order; equal bytes give equal digests wherever the folder is."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(sha256_once(file)))
    return whole.hexdigest()


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError("dataset", f"{file} is not a readable parquet file ({error})", "Download it again") from error


def _declared(readme: Path) -> dict[str, dict[str, list[str]]]:
    """Patterns from a README's YAML header; empty where it has no ``configs``."""
    if not readme.is_file():
        return {}
    text = readme.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        return {}
    try:
        header = yaml.safe_load(text.split("\n---", 1)[0])
        configs = header.get("configs") or [] if isinstance(header, dict) else []
        return {entry["config_name"]: _splits(entry["data_files"]) for entry in configs}
    except (yaml.YAMLError, KeyError, TypeError) as error:
        problem = f"the header of {readme} is not the hub's `configs` form ({error})"
        raise UserError(
            "dataset.root", problem, "Correct it, or remove the header to use <config>/<split>-*.parquet"
        ) from error


def _splits(data_files: Any) -> dict[str, list[str]]:
    """``data_files`` in any form the hub allows: split entries, or patterns alone, which mean the split train."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    if all(isinstance(entry, str) for entry in entries):
        return {"train": entries}
    return {entry["split"]: _listed(entry["path"]) for entry in entries}


def _listed(path: Any) -> list[str]:
    return path if isinstance(path, list) else [path]


def _found(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Patterns from the files' names ``<config>/<split>-00000-of-00001.parquet``."""
    patterns: dict[str, dict[str, list[str]]] = {}
    for file in sorted(folder.glob("*/*-*.parquet")):
        config, split = file.parent.name, file.stem.split("-")[0]
        patterns.setdefault(config, {})[split] = [f"{config}/{split}-*.parquet"]
    return patterns
