"""What a format's module tells of a checkpoint, and how the bytes of a file are read where none may be amiss."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.models.files import refuse_pointer, wrong
from src.models.tensors import Stored


@dataclass(frozen=True, eq=False)
class Foreign:
    """A checkpoint in another format.

    Attributes:
        files: what it is made of.
        settings: the files beside the weights that transformers would have; none where the folder has them itself.
        tensors: of every weight, under transformers' name, the file that it is in and its shape.
        read: the weights as floating-point arrays, by the same names.
        rounded: what is to be known of weights that are not those of the published model; None where they are.
    """

    files: tuple[Path, ...]
    settings: Mapping[str, bytes]
    tensors: Mapping[str, Stored]
    read: Callable[[], dict[str, np.ndarray]]
    rounded: str | None


def as_json(**settings: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of settings files by name, from their fields by name without suffix."""
    return {f"{name}.json": json.dumps(fields).encode() for name, fields in settings.items()}


def mapped(file: Path) -> np.ndarray:
    """The bytes of a file, uint8 [size], read when they are looked at.

    Raises:
        UserError: it cannot be read, is empty, or is no file but a pointer of Git LFS.
    """
    try:
        if not file.stat().st_size:
            raise wrong(f"{file} is empty", "Copy the file again")
        data = np.memmap(file, np.uint8, mode="r").view(np.ndarray)
    except OSError as error:
        raise wrong(f"{file} cannot be read ({error.strerror})", "Make it readable, or copy it again") from error
    refuse_pointer(file, data[:64].tobytes())
    return data


@contextmanager
def parsing(file: Path, kind: str) -> Iterator[None]:
    """Whatever is amiss in the bytes of ``file`` is the user's to know. Raises UserError."""
    try:
        yield
    except (struct.error, ValueError, TypeError, LookupError, RuntimeError, OverflowError, MemoryError) as error:
        said = " ".join(str(error).split())
        raise wrong(f"{file} is a damaged or cut off {kind} ({said})", "Copy or download the file again") from error
