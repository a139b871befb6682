"""Where a result was made: code, packages and machine. Every stored result keeps its own, beside its files.

A build that was killed and went on elsewhere was made in both places, and says both. A record puts together what its
results say (:func:`combined`): what all have in common once, and by result what differs.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from src.machine.processor import cpu_model
from src.project import ROOT
from src.storage.digest import sha256_file, source
from src.storage.integrity import MANIFEST
from src.storage.store import PROGRESS_SUFFIX, write_json

FILE: Final = "provenance.json"
PACKAGES: Final = (  # what a score depends on
    *("torch", "transformers", "tokenizers", "datasets", "jiwer", "whisper-normalizer"),
    *("numpy", "soundfile", "soxr"),
)
_EXPORTERS: Final = ("onnx", "onnxruntime", "pywhispercpp")  # told where they are installed
MACHINE: Final = ("processor", "cores", "threads", "device")
_ATTEMPTS: Final = f"provenance{PROGRESS_SUFFIX}"
_READ: Final = f"provenance-read{PROGRESS_SUFFIX}"
_SHOWN: Final = 12  # characters of a digest

Made = Sequence[Mapping[str, Any]]  # one place, or those that worked on a result one after the other


def here(device: str) -> dict[str, Any]:
    """What stands behind a number that this process makes on ``device`` (``cpu``, ``cuda:0`` ...).

    ``commit`` and ``dirty`` are of the checkout, None outside one; ``source`` is a digest of the code itself, which
    stays when a commit changes no code, and tells two states of a changed checkout apart.
    """
    packages = {name: found for name in (*PACKAGES, *_EXPORTERS) if (found := installed(name)) is not None}
    return {**_code(), "python": platform.python_version(), "packages": packages, **machine(device)}


def machine(device: str) -> dict[str, Any]:
    """What decides how fast this process computes: processor, those of it that may be used, threads, accelerator."""
    import torch

    name = torch.device(device).type
    if name == "cuda":  # a sweep may be launched where there is none
        name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else "cuda, which is not here"
    return {**processor(), "threads": torch.get_num_threads(), "device": name}


def processor() -> dict[str, Any]:
    """Name of the processor, and how many this process may use; without torch."""
    return {"processor": cpu_model(), "cores": len(os.sched_getaffinity(0))}


def gpus() -> list[str]:
    """What the driver says of the GPUs of this machine; without torch."""
    told = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [next((line for line in file.read_text().splitlines() if "Model" in line), "") for file in told]


def stamped(build: Callable[[Path], None], device: str = "cpu") -> Callable[[Path], None]:
    """``build``, whose folder then also tells where it was made.

    An earlier attempt is told where it left something that this one goes on from.
    """

    def write(folder: Path) -> None:
        attempts = _earlier(folder)
        if (own := here(device)) not in attempts:
            attempts.append(own)
        write_json(folder / _ATTEMPTS, attempts)
        build(folder)
        write_json(folder / FILE, {"made": attempts, "read": _load(folder / _READ) or {}})

    return write


def attempts(folder: Path) -> Made:
    """Places that worked on what is being built in ``folder``, this one last."""
    return _load(folder / _ATTEMPTS) or []


def goes_on(folder: Path) -> bool:
    """Whether what is being built in ``folder`` goes on from something that an earlier attempt left."""
    own = {_ATTEMPTS, _READ}
    left = [path for path in folder.rglob(f"*{PROGRESS_SUFFIX}*") if path.name not in own]
    return any(path.is_dir() or path.stat().st_size for path in left)


def has_read(folder: Path, name: str, entry: Path) -> None:
    """Notes that what is being built in ``folder`` rests on the result ``name`` in the folder ``entry`` too."""
    write_json(folder / _READ, {**(_load(folder / _READ) or {}), name: made(entry, name)[name]})


def made(entry: Path, name: str) -> dict[str, Made]:
    """Where the result in the folder ``entry`` was made, under ``name``, and what it has read, as ``name.what``.

    Nothing is said of a result without the file, or whose file is not the one that its manifest lists.
    """
    try:
        listed = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))[FILE]
        if sha256_file(entry / FILE) != listed:
            return {name: []}
        told = json.loads((entry / FILE).read_text(encoding="utf-8"))
        return {**{f"{name}.{read}": places for read, places in told["read"].items()}, name: told["made"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {name: []}


def combined(results: Mapping[str, Made]) -> dict[str, Any]:
    """What results by name have in common, under ``stages`` by name what differs, and ``differ``: which fields do.

    Under ``stages`` stands a list of the places that worked on the result, of which nothing may be left to tell; an
    empty list says that it is not known. Packages are told apart by dotted names: ``packages.torch``.
    """
    flat = {name: [_flat(each) for each in places] for name, places in results.items()}
    every = [place for places in flat.values() for place in places]
    fields = list(dict.fromkeys(field for place in every for field in place))
    differ = [field for field in fields if any(place.get(field) != every[0].get(field) for place in every)]
    common = {field: value for field, value in (every[0].items() if every else ()) if field not in differ}
    stages = {
        name: [{field: place[field] for field in differ if field in place} for place in places]
        for name, places in flat.items()
    }
    return {**_nested(common), "stages": stages, "differ": differ}


def separate(record: Mapping[str, Any]) -> dict[str, Made]:
    """The results by name that :func:`combined` put together into a record's ``provenance``."""
    told = dict(record)
    stages, _ = told.pop("stages", {}), told.pop("differ", None)
    common = _flat(told)
    return {name: [_nested({**common, **place}) for place in places] for name, places in stages.items()}


def differing(told: Iterable[Mapping[str, Any]]) -> list[str]:
    """In which fields the results of records differ whose ``provenance`` is given, among them and within one.

    A commit that changed no code is no difference.
    """
    each_apart = (separate(each) for each in told)
    every = {f"{number} {name}": places for number, each in enumerate(each_apart) for name, places in each.items()}
    return [field for field in combined(every)["differ"] if field not in ("commit", "dirty")]


def _earlier(folder: Path) -> list[dict[str, Any]]:
    """Earlier attempts, if any of what they made is left; of one that cannot be read nothing is known."""
    return (_load(folder / _ATTEMPTS) or [{}]) if goes_on(folder) else []


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@cache
def _code() -> dict[str, Any]:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None, "source": source()[:_SHOWN]}
    commit = told.removesuffix("-dirty")
    return {"commit": commit, "dirty": commit != told, "source": source()[:_SHOWN]}


@cache
def installed(package: str) -> str | None:
    """Version of a package; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _flat(place: Mapping[str, Any]) -> dict[str, Any]:
    packages = {f"packages.{name}": found for name, found in place.get("packages", {}).items()}
    return {**{field: value for field, value in place.items() if field != "packages"}, **packages}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    plain = {field: value for field, value in flat.items() if not field.startswith("packages.")}
    packages = {
        field.removeprefix("packages."): value for field, value in flat.items() if field.startswith("packages.")
    }
    return {**plain, "packages": packages} if packages else plain
