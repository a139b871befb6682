"""Which runtime an exported folder is for, whether that is installed, and how large its model is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from src.errors import UserError

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "torch": (),
    "onnx": ("onnxruntime",),
    "whisper_cpp": ("pywhispercpp",),
}
BY_CLIP: Final = frozenset({"torch", "onnx"})  # hear a clip in half of the window where that holds it
_FILES: Final = {"generate.json": "onnx", "ggml-model.bin": "whisper_cpp"}  # that tell a runtime's folder
_WEIGHTS: Final = (".onnx", ".bin")


def require_installed(runtime: str, field: str, name: str = "") -> None:
    """Checks that what runs ``runtime``, which the user calls ``name``, is installed.

    Raises:
        UserError: it is not.
    """
    missing = [package for package in PACKAGES[runtime] if find_spec(package) is None]
    if missing:
        problem = f"{name or runtime} needs {' and '.join(missing)}"
        raise UserError(field, problem, "Install them with `pip install -e '.[export]'`")


def runtime_of(folder: Path) -> str:
    """``onnx`` or ``whisper_cpp``.

    Raises:
        UserError: the folder is not there, or holds neither's files.
    """
    if not folder.is_dir():
        raise UserError("--model", f"{folder} is no folder", "Name the one that the export ended with")
    if found := next((runtime for file, runtime in _FILES.items() if (folder / file).is_file()), None):
        if found == "onnx" and "truncate" not in (folder / "generate.json").read_text(encoding="utf-8"):
            problem = f"{folder} was exported by an earlier version, which heard one window"
            raise UserError("--model", problem, "Export the point again")
        return found
    if (folder / "config.json").is_file():
        problem = f"{folder} holds a checkpoint that transformers runs"
        raise UserError("--model", problem, "Export the point with export=onnx, or export=ggml for whisper.cpp")
    problem = f"{folder} holds neither {' nor '.join(_FILES)}"
    raise UserError("--model", problem, "Name the folder that export=onnx or export=ggml ended with")


def file_bytes(folder: Path) -> int:
    """Size of the files that hold the model."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _WEIGHTS)
