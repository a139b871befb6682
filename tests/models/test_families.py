"""A family is one object: what is known of it is asked there, and no module outside its own names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.errors import UserError
from src.models.families import FAMILIES
from src.models.loading import load, model_identity
from src.project import ROOT
from tests.tiny import model_settings

SRC = ROOT / "src"
# Names of other things that begin like a family's: whisper.cpp, the package of Whisper's normalizer.
_OTHERS = re.compile(r"whisper_?cpp|whisper-normalizer|whisper_normalizer", re.IGNORECASE)


@pytest.mark.parametrize("read", [model_identity, lambda settings: load(settings, "cpu", 0)])
def test_a_misspelt_family_is_told_before_anything_is_read(read, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no family 'moonshin'.*Did you mean 'moonshine'"):
        read(model_settings(tmp_path, family="moonshin"))


def test_no_module_names_a_family_that_is_not_its_own() -> None:
    found = {
        f"{file.relative_to(SRC)}:{line} {name}"
        for file in SRC.rglob("*.py")
        for line, name in _names(file)
        for family in FAMILIES
        if family in _OTHERS.sub("", name).lower() and not _is_own(file, family)
    }
    assert found == set()


def _is_own(file: Path, family: str) -> bool:
    """Its package, modules with its name, the registries, and formats of it alone: whisper.cpp's, CTranslate2's."""
    path = file.relative_to(SRC)
    if path in map(Path, ("models/families.py", "models/formats/__init__.py")):
        return True
    format = path.stem.startswith("ggml") or path == Path("models/formats/ctranslate2.py")
    words = (word for part in (*path.parent.parts, path.stem) for word in (part, *part.split("_")))
    return family in words or path.stem.endswith(f"_{family}") or (family == "whisper" and format)


def _names(file: Path) -> Iterator[tuple[int, str]]:
    """What a module imports, names and compares with; prose and remedies are no code."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name | ast.Attribute | ast.alias | ast.FunctionDef | ast.ClassDef | ast.arg):
            fields = ("id", "attr", "name", "arg")
            yield node.lineno, next(getattr(node, field) for field in fields if hasattr(node, field))
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in FAMILIES:
            yield node.lineno, node.value
