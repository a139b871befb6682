"""A folder of the hub's layout: parquet files per config and split, listed by the README's header."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import yaml

from src.data.splits import is_usual, split_name, tells_split
from src.errors import UserError, did_you_mean
from src.storage.digest import sha256_once


class HubFolder:
    """Configs and splits a folder offers, and their files.

    The README's ``configs`` header decides where there is one; otherwise ``<config>/<split>-*.parquet`` or
    ``<config>/<split>/<number>.parquet``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def patterns(self) -> dict[str, dict[str, list[str]]]:
        """``{config: {split: [glob relative to the folder, ...]}}``."""
        return self._declared or _found(self.folder)

    @property
    def is_declared(self) -> bool:
        """Whether the README says where configs and splits lie."""
        return bool(self._declared)

    @cached_property
    def _declared(self) -> dict[str, dict[str, list[str]]]:
        return _declared(self.folder / "README.md")

    def files(self, config: str | None, split: str | None) -> list[Path]:
        """The split's parquet files in name order; the only config and the only split need no name.

        Raises:
            UserError: no such config or split, several where none is named, or its files are absent; lists what is
                there.
        """
        if not self.patterns:
            problem = f"{self.folder} has neither a README with `configs` nor files <config>/<split>-*.parquet"
            raise UserError("dataset.root", problem, "Name the folder that `hf download --local-dir` filled")
        splits = self._chosen("config", config, self.patterns, f"{self.folder}")
        patterns = self._chosen(
            "split", split, splits, f"config {config!r} of {self.folder}" if config else f"{self.folder}"
        )
        try:
            files = sorted({file for pattern in patterns for file in self.folder.glob(pattern) if file.is_file()})
        except (ValueError, NotImplementedError) as error:
            problem = f"README.md of {self.folder} lists {', '.join(patterns)}, which is no pattern of files ({error})"
            raise UserError("dataset.root", problem, "Correct it") from error
        if not files:
            problem = f"no file matches {', '.join(patterns)} in {self.folder}"
            raise UserError("dataset.split", problem, "Download the data set again; its README lists these files")
        return files

    @staticmethod
    def _chosen(kind: str, name: str | None, among: Mapping[str, Any], where: str) -> Any:
        if name is None and len(among) == 1:
            return next(iter(among.values()))
        if name is None:
            remedy = f"{did_you_mean('', among)}. Choose one with dataset.{kind}=NAME"
            raise UserError(f"dataset.{kind}", f"{where} has several {kind}s", remedy)
        if name not in among:
            raise UserError(f"dataset.{kind}", f"{where} has no {kind} {name!r}", did_you_mean(name, among))
        return among[name]


def digest(files: Sequence[Path]) -> str:
    """SHA-256 of the files' bytes in order; equal bytes give equal digests wherever the folder is."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(sha256_once(file)))
    return whole.hexdigest()


def _declared(readme: Path) -> dict[str, dict[str, list[str]]]:
    """Patterns from a README's YAML header; empty where it has no ``configs``."""
    if not readme.is_file():
        return {}
    text = readme.read_text(encoding="utf-8-sig", errors="replace")
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
    patterns = path if isinstance(path, list) else [path]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{path!r} is no pattern")
    return patterns


def _found(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Patterns from the files' places and names: see :func:`~src.data.splits.split_name`.

    A folder is called by a config, or by a split where its files' names tell none.
    """
    patterns: dict[str, dict[str, list[str]]] = {}
    for file in sorted(file for depth in ("", "*/", "*/*/") for file in folder.glob(f"{depth}[!.]*.parquet")):
        place = file.relative_to(folder)
        *parents, _ = place.parts
        split = split_name(file)
        if parents and (file.stem.isdecimal() or (is_usual(parents[-1]) and not tells_split(file))):
            split = parents.pop()
        config = "/".join(parents) or "default"
        patterns.setdefault(config, {}).setdefault(split, []).append(escape(str(place)))
    return patterns
