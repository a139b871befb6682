"""Where a checkpoint comes from: a folder or the hub, and the identity a fingerprint hashes.

Nothing heavy is imported here, so that a run whose results are all cached stays fast.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from src.errors import UserError
from src.models.claims import check_checkpoint, check_config
from src.models.families import family_of
from src.models.files import (
    ADAPTER,
    CONFIG,
    INDEX,
    SETTINGS,
    WEIGHTS,
    shard_of_tensor,
    weight_files,
    wrong,
)
from src.models.formats import foreign, settings_folder, source_files
from src.models.package import is_package, package_folder
from src.project import ROOT
from src.settings import ModelSettings
from src.storage.digest import sha256_once

# Pickled weights, variants and documentation are neither fetched nor part of the identity; adapters, to be refused.
FETCHED = (*SETTINGS, ADAPTER[0], WEIGHTS, INDEX, "model-?????-of-?????.safetensors")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDER_PREFIXES = (".", "/", "~", "src/")
_LONGEST_ID = 96
_SOURCES = "Give the path of a checkpoint's folder, or a hub id such as openai/whisper-tiny"
_ANOTHER = "To take another model, leave the digests out with ~model.sha256"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_source(source: str) -> Path | None:
    """The folder ``source`` names, or ``None`` where it is a hub id.

    Relative folders are looked up from the working directory, then from the project's root. What looks like
    ``organisation/name`` is a hub id unless there is such a folder; ``package:NAME/FOLDER`` is data of an installed
    package (:mod:`src.models.package`).

    Raises:
        UserError: ``source`` can only be a folder and there is none.
    """
    if is_package(source):
        return package_folder(source)
    try:
        path = Path(source).expanduser()
        for candidate in (Path.cwd() / path, ROOT / path):
            if candidate.is_dir():
                return candidate
            if candidate.is_file():
                raise wrong(f"{source!r} is a file", "Give the path of the folder that it is in")
    except (OSError, RuntimeError, ValueError) as error:  # too long, not to be read; no such user; a NUL
        reason = getattr(error, "strerror", None) or error
        raise wrong(f"there is no folder {_short(source)} ({reason})", _SOURCES) from None
    if _is_hub_id(source):
        return None
    raise wrong(f"there is no folder {source!r}", _SOURCES)


def _is_hub_id(source: str) -> bool:
    """``organisation/name`` as the hub allows it."""
    named = _HUB_ID.fullmatch(source) and not source.startswith(_FOLDER_PREFIXES)
    return bool(named) and len(source) <= _LONGEST_ID and "--" not in source and ".." not in source


def _short(source: str) -> str:
    return repr(source) if len(source) < 200 else f"{source[:100]!r}... of {len(source)} characters"


def model_identity(settings: ModelSettings) -> dict[str, str]:
    """What makes a model the same model wherever it is run; hashed by every fingerprint.

    A folder is identified by its content, a hub checkpoint by its commit, random weights by their architecture (the
    seed they are drawn with is the caller's to add).

    Raises:
        UserError: the folder does not exist or holds another checkpoint than it seems (:mod:`src.models.claims`), or an
            unpinned hub revision can not be resolved.
    """
    identity = {"family": family_of(settings.family).name, "language": settings.language or ""}
    if settings.random_weights and settings.architecture:
        return identity | {"architecture": json.dumps(settings.architecture, sort_keys=True)}
    folder = resolve_source(settings.source)
    if settings.random_weights and folder is not None:
        folder = settings_folder(folder)
        check_config(settings, folder)
        return identity | {"architecture": sha256_once(folder / CONFIG)}
    if folder is not None:
        check_checkpoint(settings, settings_folder(folder))
        found = foreign(folder)
        rounded = {"rounded": f"{found.rounded}: the baseline is that"} if found and found.rounded else {}
        return identity | {"sha256": _folder_digest(folder, settings.sha256)} | rounded
    return identity | {"id": settings.source, "revision": resolve_revision(settings.source, settings.revision)}


def checkpoint_folder(settings: ModelSettings) -> Path | None:
    """The folder with a checkpoint's settings, fetched if need be; ``None`` for random weights, which have no file.

    Raises:
        UserError: there is no such folder, or it cannot be fetched.
    """
    if settings.random_weights:
        return None
    folder = resolve_source(settings.source)
    if folder is not None:
        return settings_folder(folder)
    return download(settings.source, resolve_revision(settings.source, settings.revision))


@lru_cache
def resolve_revision(source: str, revision: str | None) -> str:
    """The commit that ``revision`` of a hub checkpoint stands for; the newest one where it is ``None``.

    Raises:
        UserError: no such checkpoint or revision, or it is not pinned and there is neither network nor a cached copy.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _commit_on_hub(source, revision)
    except OSError:
        try:
            return Path(snapshot_download(source, revision=revision, local_files_only=True)).name
        except LocalEntryNotFoundError:
            raise _unreachable(source, revision) from None


def download(source: str, revision: str) -> Path:
    """Folder with the files of a hub checkpoint at a commit: the cached copy, or fetched now.

    Raises:
        UserError: it is not cached and can not be fetched.
    """
    from huggingface_hub import snapshot_download

    def fetch(*, cached: bool) -> Path:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=[*FETCHED], local_files_only=cached))
        if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
            shards = sorted(set(shard_of_tensor(folder).values()))
            if not all((folder / shard).exists() for shard in shards):
                snapshot_download(source, revision=revision, allow_patterns=shards, local_files_only=cached)
        return folder

    try:
        folder = fetch(cached=True)
        if (folder / CONFIG).exists() and weight_files(folder):
            return folder
    except (OSError, UserError):
        pass  # not in the cache, or only in part
    try:
        _commit_on_hub(source, revision)  # fails at once without a network, where a download would retry for long
        with _http_errors_as_os_errors():
            return fetch(cached=False)
    except OSError:
        raise _unreachable(source, revision) from None


def _commit_on_hub(source: str, revision: str | None) -> str:
    """Asks the hub, once.

    Raises:
        UserError: the hub has no such checkpoint or revision.
        OSError: the hub can not be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        with _http_errors_as_os_errors():
            return str(HfApi().model_info(source, revision=revision).sha)
    except RevisionNotFoundError:
        raise UserError(
            "model.revision",
            f"{source!r} has no revision {revision!r}",
            f"See https://huggingface.co/{source}/commits/main",
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            "model.source",
            f"the hub has no public model {source!r}",
            "Check the id; for a gated or private model, accept its terms and run `hf auth login`",
        ) from None


@contextmanager
def _http_errors_as_os_errors() -> Iterator[None]:
    """The hub client passes on connection errors of its HTTP library, which are no :class:`OSError`."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except HTTPError as error:
        if isinstance(error, OSError):
            raise
        raise ConnectionError(str(error)) from error


def _unreachable(source: str, revision: str | None) -> UserError:
    pinned = f" --revision {revision}" if revision else ""
    return UserError(
        "model.source",
        f"{source!r} is not in the local cache and the hub can not be reached",
        f"Where there is a network, run `hf download {source}{pinned} --local-dir DIR`, then pass model.source=DIR",
    )


def _folder_digest(folder: Path, expected: Mapping[str, str]) -> str:
    """sha256 over names and contents of the files that loading reads, which are ``expected`` to have these by name.

    Raises:
        UserError: a file cannot be read, or has another content than expected.
    """
    digest = hashlib.sha256()
    try:
        files = source_files(folder)
        if absent := expected.keys() - {file.relative_to(folder).as_posix() for file in files}:
            raise wrong(f"model.sha256 names {', '.join(sorted(absent))}, which is no file of {folder}", _ANOTHER)
        for file in files:
            name, found = file.relative_to(folder).as_posix(), sha256_once(file)
            if expected.get(name, found) != found:
                problem = f"{file} has the sha256 {found}, and model.sha256 says {expected[name]}"
                raise wrong(problem, f"Copy or install it again. {_ANOTHER}")
            digest.update(f"{name} {found}\n".encode())
    except OSError as error:
        raise wrong(
            f"{error.filename} cannot be read ({error.strerror})", "Make it readable, or copy it again"
        ) from None
    return digest.hexdigest()
