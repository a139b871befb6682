"""The files that a checkpoint in a folder is made of: what loading reads, hence what its identity hashes.

Loading is shown these files and no others (:func:`only`), so that nothing is read that no fingerprint knows of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Final

from src.errors import UserError

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
SETTINGS: Final = (
    CONFIG,
    GENERATION,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "normalizer.json",
    "vocab.json",
    "merges.txt",
)
# A change to other weights. Never read: applied or not, the result would be another model's.
ADAPTER: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
COMPLETE: Final = "Give the folder of a complete checkpoint"
PROCESSORS_REMEDY: Final = "Copy the preprocessor's and the tokenizer's files from the checkpoint this one was made of"
_POINTER: Final = b"version https://git-lfs"


def checkpoint_files(folder: Path) -> list[Path]:
    """What the checkpoint in ``folder`` is made of, in order of name: settings, and weights where there are some.

    Raises:
        UserError: a file is named and not there, or it is an adapter and no model.
    """
    _refuse_adapters(folder)
    return sorted({*settings_files(folder), *weight_files(folder)})


def settings_files(folder: Path) -> list[Path]:
    """Those of :data:`SETTINGS` that are there.

    Raises:
        UserError: one is a link that leads nowhere.
    """
    return [folder / name for name in SETTINGS if _is_there(folder / name)]


def weight_files(folder: Path) -> list[Path]:
    """One file, or an index and the shards it names; none where there is neither. The one file is taken first.

    Raises:
        UserError: the index cannot be read, or names what is not there.
    """
    if _is_there(folder / WEIGHTS):
        return [folder / WEIGHTS]
    if not _is_there(folder / INDEX):
        return []
    shards = [folder / name for name in sorted(set(shard_of_tensor(folder).values()))]
    absent = [shard.name for shard in shards if not _is_there(shard)]
    if absent:
        raise wrong(f"{folder / INDEX} names {', '.join(absent)}, which is not there", "Copy all files of the model")
    return [folder / INDEX, *shards]


def shard_of_tensor(folder: Path) -> dict[str, str]:
    """Of every tensor's name, the file that the index names, relative to ``folder``.

    Raises:
        UserError: the index is no such map, or leads out of the folder.
    """
    names = read_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise wrong(f"{folder / INDEX} has no weight_map from tensors to files", COMPLETE)
    for name in names.values():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
            raise wrong(f"{folder / INDEX} names {name!r}, which is no safetensors file of the folder", COMPLETE)
    return names


@contextmanager
def only(folder: Path, files: Sequence[Path]) -> Iterator[Path]:
    """A folder in which ``files`` of ``folder``, and no others, are found under their names."""
    with TemporaryDirectory(prefix="checkpoint-") as temporary:
        shown = Path(temporary)
        for file in files:
            link = shown / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
        yield shown


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``.

    Raises:
        UserError: there is none.
    """
    try:
        data = file.read_bytes()
        refuse_pointer(file, data)
        found = json.loads(data)
    except OSError as error:
        raise wrong(f"{file} cannot be read ({error.strerror})", COMPLETE) from error
    except (ValueError, RecursionError) as error:
        raise wrong(f"{file} is not JSON ({error})", COMPLETE) from error
    if not isinstance(found, dict):
        raise wrong(f"{file} holds a {type(found).__name__}, not an object", COMPLETE)
    return found


def refuse_pointer(file: Path, beginning: bytes) -> None:
    """Checks that ``file`` is not what a clone without Git LFS leaves in its place. Raises UserError."""
    if beginning.startswith(_POINTER):
        raise wrong(f"{file} is a Git LFS pointer, not the file itself", "Run `git lfs pull` in the clone")


def wrong(problem: str, remedy: str) -> UserError:
    """The error about a checkpoint."""
    return UserError("model.source", problem, remedy)


def _is_there(file: Path) -> bool:
    if file.is_symlink() and not file.exists():
        raise wrong(
            f"{file} is a link to {file.readlink()}, which is not there", "Copy the files, not the links to them"
        )
    if file.is_dir():
        raise wrong(f"{file} is a folder, not a file", COMPLETE)
    return file.exists()


def _refuse_adapters(folder: Path) -> None:
    found = [name for name in ADAPTER if (folder / name).exists()]
    if not found:
        return
    base = None
    if found[0] == ADAPTER[0]:
        base = read_object(folder / found[0]).get("base_model_name_or_path")
    beside = "beside weights" if weight_files(folder) else "and no weights"
    made = f" to {base!r}" if base else ""
    problem = f"{folder} holds an adapter{made} ({', '.join(found)}) {beside}; adapters are not applied"
    remedy = (
        "Merge it first, with merge_and_unload() of peft and save_pretrained(folder), and pass model.source=folder; "
        "to evaluate the base model, take the adapter's files out of its folder"
    )
    raise wrong(problem, remedy)
