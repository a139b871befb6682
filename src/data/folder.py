"""A folder of the hub's layout: parquet files per config and split, listed by the README's header."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from src.digest import sha256_once
from src.errors import UserError, did_you_mean


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
