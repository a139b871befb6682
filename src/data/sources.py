"""Where a corpus lies: the hub, a folder of the hub's layout, or a user's own files; one way to read them all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NoReturn

from src.data.hub import download
from src.data.hub_folder import HubFolder, digest
from src.data.local import local_files, local_rows
from src.data.parquet import ParquetRows
from src.data.rows import Rows, check_columns
from src.errors import UserError
from src.project import ROOT
from src.settings import DatasetSettings

_HUB: Final = "Name a folder in the hub's layout, e.g. one made by `hf download --repo-type dataset`"
_OWN: Final = "Set dataset.root to the folder, manifest or parquet file of your data"
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def dataset_identity(settings: DatasetSettings) -> dict[str, str]:
    """What makes two test sets the same data: the files' digest for a folder, id and revision for the hub.

    Neither ``limit`` nor where a folder lies is part of it. A manifest's identity is its text: the audio of the clips
    that are drawn from it is part of a :class:`~src.data.corpora.Selection`'s key.

    Raises:
        UserError: the folder, config or split does not exist.
    """
    part = {"config": settings.config, "split": settings.split}
    named = {name: value for name, value in part.items() if value is not None}
    place = _place(settings)
    if place is None:
        return {"source": str(settings.source), "revision": settings.revision or "main", **named}
    return {"sha256": digest(_files(settings, place)), **named}


def open_rows(settings: DatasetSettings) -> Rows:
    """The rows of the split; what lies on the hub is downloaded now.

    Raises:
        UserError: absent data, config, split or column, an unreadable file, or no network.
    """
    place, columns = _place(settings), settings.columns
    rows: Rows
    if place is None:
        rows = download(settings)
        where = f"{settings.source} ({settings.config}, {settings.split})"
    else:
        where = str(place)
        own = settings.source is None
        rows = (
            local_rows(settings, place) if own else ParquetRows(_files(settings, place), columns.audio, published=True)
        )
    needed = [columns.text, columns.audio]
    if settings.source is not None:  # of a user's own data the others are read where they are there
        needed += [name for name in (columns.id, columns.speaker, columns.session) if name is not None]
    check_columns(rows.columns, needed, where)
    beside = rows.files(range(len(rows)))
    if beside and settings.source is not None and place is not None:
        problem = f"{where} names files such as {beside[0]} instead of holding their sound"
        raise UserError("dataset.root", problem, "Read it as your own data: dataset=local dataset.root=...")
    return rows


def _files(settings: DatasetSettings, place: Path) -> list[Path]:
    if settings.source is None:
        return local_files(settings, place)
    return HubFolder(place).files(settings.config, settings.split)


def _place(settings: DatasetSettings) -> Path | None:
    """The folder or file the data is read from, or None where it comes from the hub."""
    if settings.root is not None:
        own = settings.source is None
        return _existing(settings.root, own) or _absent("dataset.root", settings.root, _OWN if own else _HUB)
    if settings.source is None:
        raise UserError("dataset.root", f"it is not set, and {settings.name} has no other place", _OWN)
    folder = _existing(settings.source)
    if folder is None and not _HUB_ID.fullmatch(settings.source):
        _absent("dataset.source", settings.source, _HUB)
    return folder


def _existing(path: str, file: bool = False) -> Path | None:
    """``path`` as a folder, or where allowed a ``file``: from the working directory, then from the project's root."""
    try:
        given = Path(path).expanduser()
        return next((place for place in (given, ROOT / given) if place.is_dir() or (file and place.is_file())), None)
    except (OSError, RuntimeError, ValueError):  # too long, not ours to see, or the home directory of nobody
        return None


def _absent(field: str, path: str, remedy: str) -> NoReturn:
    raise UserError(field, f"there is no folder {path!r} here or under {ROOT}", remedy)
