"""Checkpoints that installed Python packages hold as data: ``package:NAME/FOLDER``, with ``+`` between several.

The package is found and never imported, so that no code of it runs. pip is what fetches it.
"""

from __future__ import annotations

from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from src.models.files import wrong

_PREFIX: Final = "package:"
_INSTALL: Final = "Run pip install -e '.[real]'"
_joined: list[TemporaryDirectory[str]] = []  # removed when the process ends


def is_package(source: str) -> bool:
    return source.startswith(_PREFIX)


@cache
def package_folder(source: str) -> Path:
    """The folder that ``package:NAME/FOLDER`` names; of several, a folder with links to the files of all.

    Raises:
        UserError: a package is not installed, or has no such folder.
    """
    folders = [_folder(source, part) for part in source.removeprefix(_PREFIX).split("+")]
    if len(folders) == 1:
        return folders[0]
    _joined.append(TemporaryDirectory(prefix="package-"))
    joined = Path(_joined[-1].name)
    for file in (file for folder in folders for file in folder.iterdir() if file.is_file()):
        (joined / file.name).symlink_to(file)
    return joined


def _folder(source: str, part: str) -> Path:
    name, _, inside = part.strip().partition("/")
    found = PathFinder.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise wrong(f"{source!r} is data of the Python package {name!r}, which is not installed", _INSTALL)
    folder = Path(found.submodule_search_locations[0], inside)
    if not folder.is_dir() or ".." in folder.parts:
        raise wrong(f"the installed package {name!r} has no folder {inside!r}", f"{_INSTALL}, whose versions have it")
    return folder
