"""Test and calibration sets in the Open ASR leaderboard's layout, from the hub or from a folder of that layout."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final, NoReturn

from src.data.audio import AudioError, count_samples
from src.data.folder import FolderRows, Layout, digest
from src.data.hub import HubRows
from src.data.rows import Rows, unique
from src.data.utterance import Utterance, chosen, draw, undecodable
from src.errors import UserError
from src.evaluation.normalizers import is_scored
from src.settings import ROOT, DatasetSettings

__all__ = ["Utterance", "dataset_identity", "draw", "load_utterances", "require_dataset"]

log = logging.getLogger(__name__)

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def dataset_identity(settings: DatasetSettings) -> dict[str, str]:
    """What makes two test sets the same data: the files' digest for a folder, id and revision for the hub.

    Neither ``limit`` nor where a folder lies is part of it.

    Raises:
        UserError: the folder, config or split does not exist.
    """
    part = {"config": settings.config, "split": settings.split}
    folder = _folder(settings)
    if folder is None:
        return {"source": settings.source, "revision": settings.revision or "main", **part}
    return {"sha256": digest(Layout(folder).files(settings.config, settings.split)), **part}


def load_utterances(settings: DatasetSettings, seed: int) -> list[Utterance]:
    """The split's utterances in the order of their ids, or a random ``limit`` of them drawn by ``seed``.

    References that are empty after normalisation, or marked as not scored, are dropped and counted in the log.

    Raises:
        UserError: absent data, config, split or column, no network, undecodable audio, or nothing left to score.
    """
    rows = _rows(settings)
    texts = rows.strings("text")
    scored = [row for row, text in enumerate(texts) if is_scored(text)]
    _report_dropped(settings, len(texts), len(scored))
    names = unique(rows.strings("id"))
    keep = [scored[index] for index in chosen([names[row] for row in scored], settings.limit, seed)]
    audio = rows.audio(keep)
    return [_utterance(names[row], texts[row], audio[row]) for row in keep]


def require_dataset(settings: DatasetSettings) -> None:
    """Checks that the data can be read; what lies on the hub is downloaded now.

    Raises:
        UserError: absent data, config, split or column, or no network.
    """
    _rows(settings)


def _utterance(name: str, text: str, audio: bytes | None) -> Utterance:
    if audio is None:
        raise undecodable(name, AudioError("the row holds a path and no bytes"))
    try:
        return Utterance(id=name, text=text, samples=count_samples(audio), audio=audio)
    except AudioError as error:
        raise undecodable(name, error) from error


def _report_dropped(settings: DatasetSettings, total: int, scored: int) -> None:
    if not scored:
        problem = f"none of the {total} references of {settings.name} has words left after normalisation"
        raise UserError("dataset", problem, "Check the text column of this data set")
    if scored < total:
        log.info("%s: dropped %d of %d references with nothing to score", settings.name, total - scored, total)
    if settings.limit is not None and settings.limit > scored:
        log.info("%s: limit=%d, but the set has %d utterances: all are used", settings.name, settings.limit, scored)


def _rows(settings: DatasetSettings) -> Rows:
    folder = _folder(settings)
    if folder is None:
        return HubRows(settings.source, settings.revision, settings.config, settings.split)
    return FolderRows(Layout(folder).files(settings.config, settings.split))


def _folder(settings: DatasetSettings) -> Path | None:
    """The folder the data is read from, or None where it comes from the hub."""
    if settings.root is not None:
        return _existing(settings.root) or _absent("dataset.root", settings.root)
    folder = _existing(settings.source)
    if folder is None and not _HUB_ID.fullmatch(settings.source):
        _absent("dataset.source", settings.source)
    return folder


def _existing(path: str) -> Path | None:
    """``path`` as a folder: from the working directory, then from the project's root."""
    given = Path(path).expanduser()
    return next((folder for folder in (given, ROOT / given) if folder.is_dir()), None)


def _absent(field: str, path: str) -> NoReturn:
    remedy = f"Set {field} to a folder in the hub's layout, e.g. one made by `hf download --repo-type dataset`"
    raise UserError(field, f"there is no folder {path!r} here or under {ROOT}", remedy)
