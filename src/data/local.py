"""A user's own data: what lies at ``dataset.root`` and how it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa

from src.data.arrow import ArrowRows
from src.data.hub_folder import HubFolder
from src.data.manifest import FIELD, SUFFIXES, ManifestRows, manifests
from src.data.parquet import ParquetRows
from src.data.rows import Rows
from src.data.splits import no_split, of_split, rows_of_split, several
from src.errors import UserError
from src.settings import DatasetSettings

_FORMS: Final = (
    "Name a manifest (.jsonl, .csv or .tsv with audio and text), parquet, a folder with one of these, or a folder that "
    "save_to_disk wrote"
)
_NAMED: Final = (*SUFFIXES, ".json")  # a folder may hold .json that is no manifest
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"  # marks of a data set and of several splits on disk


@dataclass(frozen=True)
class _Found:
    """Files of one form; ``is_split`` where they hold just the split that was asked for, ``whole`` the one they are."""

    form: Literal["manifest", "parquet", "saved"]
    files: list[Path]
    is_split: bool
    whole: tuple[str, ...] = ()


def local_files(settings: DatasetSettings, root: Path) -> list[Path]:
    """The files that hold the corpus: a manifest, parquet files, or the data of what ``save_to_disk`` wrote.

    Raises:
        UserError: nothing there is a corpus, or more than one thing is.
    """
    return _found(settings, root).files


def local_rows(settings: DatasetSettings, root: Path) -> Rows:
    """The rows of :func:`local_files` that are of the split. Raises UserError where they cannot be read."""
    found = _found(settings, root)
    rows = _open(found, settings.columns.audio)
    return rows if found.is_split else rows_of_split(rows, settings.columns.split, settings.split, root, found.whole)


def _found(settings: DatasetSettings, root: Path) -> _Found:
    try:
        return _find(settings, root, settings.split)
    except OSError as error:
        raise UserError(FIELD, f"{root} cannot be read ({error.strerror})", "Check its permissions") from error


def _open(found: _Found, audio: str) -> Rows:
    if found.form == "manifest":
        return ManifestRows(found.files[0], audio)
    return ParquetRows(found.files, audio) if found.form == "parquet" else _load_from_disk(found.files[0].parent, audio)


def _find(settings: DatasetSettings, root: Path, split: str | None) -> _Found:
    if root.is_file():
        return _plain(settings, root, [root], split)
    saved = _saved(settings, root, split)
    if saved is not None:
        return saved
    lists = list(manifests(root))
    tables = sorted(root.glob("[!.]*.parquet"))
    if lists and tables:
        problem = f"{root} has a manifest and a table: {lists[0].name}, {tables[0].name}"
        raise UserError(FIELD, problem, f"Name one: dataset.root={lists[0]}")
    if lists:
        return _plain(settings, root, lists, split)
    return _parquet(settings, root, tables, split) or _below(settings, root, split)


def _plain(settings: DatasetSettings, root: Path, files: list[Path], split: str | None) -> _Found:
    """Manifests, of which one is read, or parquet files of one table."""
    _no_configs(settings, root)
    suffix = files[0].suffix.lower()
    if suffix not in (*_NAMED, ".parquet"):
        raise UserError(FIELD, f"{root} is neither .jsonl, .csv, .tsv nor .parquet", _FORMS)
    form: Literal["manifest", "parquet"] = "parquet" if suffix == ".parquet" else "manifest"
    chosen = of_split(files, split, root) if split is not None or form == "parquet" else files
    if form == "manifest" and len(chosen or files) > 1:
        names = ", ".join(path.name for path in chosen or files)
        raise UserError(FIELD, f"{root} has several manifests ({names})", f"Name one: dataset.root={files[0]}")
    return _Found(form, chosen or files, is_split=split is not None and chosen is not None)


def _parquet(settings: DatasetSettings, root: Path, files: list[Path], split: str | None) -> _Found | None:
    """Parquet files: in the folder itself, or laid out by config and split as on the hub."""
    layout = HubFolder(root)
    if layout.patterns and (layout.is_declared or not files):
        return _Found("parquet", layout.files(settings.config, split), is_split=True)
    return _plain(settings, root, files, split) if files else None


def _below(settings: DatasetSettings, root: Path, split: str | None) -> _Found:
    """What lies in a folder for each split."""
    parts = [path for path in sorted(root.iterdir()) if path.is_dir() and _is_corpus(path)]
    if not parts:
        raise UserError(FIELD, f"{root} has no manifest, no parquet file and no saved data set", _FORMS)
    names = [path.name for path in parts]
    if split is None:
        several(root, names)
    if split not in names:
        no_split(root, split, names)
    found = _find(settings, root / split, None)
    return _Found(found.form, found.files, is_split=True)


def _is_corpus(folder: Path) -> bool:
    return (folder / _SAVED).is_file() or any(manifests(folder))


def _no_configs(settings: DatasetSettings, root: Path) -> None:
    if settings.config is not None:
        problem = f"{root} has no config {settings.config!r}, as only folders in the hub's layout have configs"
        raise UserError("dataset.config", problem, "Use dataset.config=null")


def _saved(settings: DatasetSettings, root: Path, split: str | None) -> _Found | None:
    """What ``save_to_disk`` wrote, of several splits the one; None where it is something else."""
    if (root / _SAVED).is_file():
        _no_configs(settings, root)
        files, own = _saved_files(root)
        return _Found("saved", files, split is not None and split == own, () if own is None else (own,))
    if not (root / _SAVED_SPLITS).is_file():
        return None
    _no_configs(settings, root)
    splits = sorted(path.parent.name for path in root.glob(f"*/{_SAVED}"))
    if not splits:
        raise _unreadable(root, "none of its splits is there")
    if split is None:
        several(root, splits)
    if split not in splits:
        no_split(root, split, splits)
    return _Found("saved", _saved_files(root / split)[0], is_split=True)


def _saved_files(folder: Path) -> tuple[list[Path], str | None]:
    """The tables and features of a saved set, not what later work left beside them; and the split it says it is."""
    try:
        state = json.loads((folder / _SAVED).read_text(encoding="utf-8"))
        files = [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _unreadable(folder, error) from error
    info = folder / "dataset_info.json"
    absent = next((file for file in [*files, info] if not file.is_file()), None)
    if absent is not None:
        raise _unreadable(folder, f"there is no {absent.name}")
    return [*files, info], state.get("_split")


def _load_from_disk(folder: Path, audio: str) -> ArrowRows:
    from datasets import load_from_disk

    try:
        return ArrowRows(load_from_disk(str(folder)), audio, str(folder), folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception | str) -> UserError:
    return UserError(FIELD, f"{folder} is no data set on disk that can be read ({error})", "Save it again")
