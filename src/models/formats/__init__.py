"""Checkpoints in other formats than transformers', read by their bytes: no code of theirs is run, one module a format.

Headers and settings are read at once, and tell what transformers would find in a folder of its own; weights are read
when they are asked for. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from src.models.files import checkpoint_files
from src.models.formats import ctranslate2, moonshine_ort, quantized
from src.models.formats.foreign import Foreign

__all__ = ["Foreign", "foreign", "settings_folder", "source_files"]

# Of a folder with safetensors, only that can be meant.
_SAFETENSORS: Final[tuple[Callable[[Path], Foreign | None], ...]] = (quantized.describe,)
_OTHERS: Final[tuple[Callable[[Path], Foreign | None], ...]] = (ctranslate2.describe, moonshine_ort.describe)


@dataclass(frozen=True)
class _Shown:
    folder: TemporaryDirectory[str]  # removed when the process ends
    holds: Foreign


_shown: dict[Path, _Shown] = {}


def foreign(folder: Path) -> Foreign | None:
    """What is in ``folder``, or behind it where :func:`settings_folder` made it; None where it is transformers' own.

    Raises:
        UserError: a file of one of the formats is damaged, cut off, or of another model or version.
    """
    if folder in _shown:
        return _shown[folder].holds
    states = [(file, file.stat().st_mtime_ns, file.stat().st_size) for file in folder.iterdir() if file.is_file()]
    return _foreign(folder, tuple(sorted(states)))


@lru_cache(maxsize=16)
def _foreign(folder: Path, _states: tuple[tuple[Path, int, int], ...]) -> Foreign | None:
    formats = _SAFETENSORS if _has_safetensors(folder) else _OTHERS
    return next(filter(None, (describe(folder) for describe in formats)), None)


def _has_safetensors(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def settings_folder(folder: Path) -> Path:
    """Where transformers finds its settings of the checkpoint in ``folder``: there, or made from another format's.

    Raises:
        UserError: as :func:`foreign`.
    """
    found = None if _has_safetensors(folder) else foreign(folder)
    if found is None or folder in _shown:
        return folder
    for shown in _shown.values():
        if shown.holds is found:
            return Path(shown.folder.name)
    made = TemporaryDirectory(prefix="settings-")
    for name, content in found.settings.items():
        (Path(made.name) / name).write_bytes(content)
    _shown[Path(made.name)] = _Shown(made, found)
    return Path(made.name)


def source_files(folder: Path) -> list[Path]:
    """What the checkpoint in ``folder`` is made of, in any format: what its identity hashes. Raises UserError."""
    found = foreign(folder)
    return checkpoint_files(folder) if found is None else sorted(found.files)
