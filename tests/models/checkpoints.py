"""Ways to spoil a checkpoint's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
Spoil = Callable[[Path], None]


def edited(name: str, drop: tuple[str, ...] = (), **changes: Any) -> Spoil:
    """Fields of a JSON file changed or taken away."""

    def spoil(folder: Path) -> None:
        file = folder / name
        told = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({key: value for key, value in (told | changes).items() if key not in drop}))

    return spoil


def tensors(change: Callable[[dict[str, Tensor]], Any]) -> Spoil:
    """Tensors changed in place, added or taken away."""

    def spoil(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        copied = {name: tensor.contiguous().clone() for name, tensor in held.items()}
        save_file(copied, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def sharded(names: tuple[str, str]) -> Spoil:
    """The weights in two files of these names."""

    def spoil(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        shard_of = {tensor: names[number % 2] for number, tensor in enumerate(sorted(held))}
        for name in names:
            part = {tensor: held[tensor] for tensor, shard in shard_of.items() if shard == name}
            (folder / name).parent.mkdir(exist_ok=True)
            save_file(part, folder / name, metadata={"format": "pt"})
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))

    return spoil


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    """The bytes of a file, changed."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        for each in spoils:
            each(folder)

    return spoil
