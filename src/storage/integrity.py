"""Whether a stored entry is what it was when it was stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.storage.digest import fingerprint, sha256_once

MANIFEST = "manifest.json"  # SHA-256 of every other file
KEY = "key.json"  # the settings that name the entry


def damage(folder: Path) -> str | None:
    """What is wrong with the entry in ``folder``, in words; None where all is as it was stored.

    Every file matches its checksum, and the key is the one that the folder is named after. A file is read once in a
    process as long as its state stays: see :func:`~src.storage.digest.sha256_once`.
    """
    try:
        digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if KEY not in digests:
            return f"{MANIFEST} does not list {KEY}"
        for name, digest in digests.items():
            if sha256_once(folder / name) != digest:
                return f"checksum of {name} differs"
        if fingerprint(json.loads((folder / KEY).read_text(encoding="utf-8"))) != folder.name:
            return f"{KEY} is of another entry"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"unreadable: {error}"
    return None


def state(folder: Path) -> dict[str, Any]:
    """What tells later whether the entry in ``folder`` changed: digest of its manifest, size and times of its files."""
    names = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = {name: _times(folder / name) for name in (*names, MANIFEST)}
    return {"manifest": sha256_once(folder / MANIFEST), "files": files}


def holds(folder: Path, known: Mapping[str, Any]) -> bool:
    """Whether the entry in ``folder`` is what it was when its :func:`state` was noted.

    Files that look the same are not read; where one does not (the folder may have been copied), all are.
    """
    try:
        if all(_times(folder / name) == noted for name, noted in known["files"].items()):
            return True
        return bool(sha256_once(folder / MANIFEST) == known["manifest"]) and damage(folder) is None
    except OSError:
        return False


def _times(path: Path) -> list[int]:
    """Size and times of change; the latter of the two times cannot be set back."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
