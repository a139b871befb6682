"""The packages of ``src`` are floors: a module imports from floors below its own, so that each has one place to be.

Every import counts, also those inside functions and for type checkers.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter

from src.project import ROOT

SRC = ROOT / "src"
# From the ground up; packages of one floor do not know each other.
FLOORS = (
    ("errors", "project"),
    ("text", "storage", "lowbit"),
    ("metrics",),
    ("settings",),
    ("machine", "records"),
    ("data",),
    ("models", "scoring"),
    ("quant",),
    ("decoding", "embedded"),
    ("calib",),
    ("methods",),
    ("export",),
    ("runtimes",),
    ("profiling",),
    ("terminal", "reporting"),
    ("tracking",),
    ("stages",),
    ("runs",),
    ("launching", "sweepers"),
    ("main", "report", "compare", "dashboard", "distributions", "transcribe"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports() -> Iterator[tuple[str, str]]:
    """Each module below ``src`` and a module of ours that it imports, by dotted names without ``src``."""
    files = {
        ".".join(file.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (*SRC.glob("*/**/*.py"), *SRC.glob("[a-z]*.py"))
    }
    for module, file in files.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in _names(node):
                named = name if name in files else name.rpartition(".")[0]
                if named in files and named != module:
                    yield module.removeprefix("src."), named.removeprefix("src.")


def _names(node: ast.AST) -> list[str]:
    """What is imported: modules, or names of a module behind its own."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def test_every_room_has_a_floor() -> None:
    found = {path.stem for path in SRC.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == set(FLOOR)


def test_no_import_runs_upward() -> None:
    upward = {
        f"{module} imports {name}"
        for module, name in imports()
        if module.split(".")[0] != name.split(".")[0] and FLOOR[module.split(".")[0]] <= FLOOR[name.split(".")[0]]
    }
    assert upward == set()


def test_no_modules_import_each_other() -> None:
    """Within a room, either: each module can be read after those it rests on."""
    graph: dict[str, set[str]] = {}
    for module, name in imports():
        graph.setdefault(module, set()).add(name)
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_a_class_has_a_name_of_its_own() -> None:
    """Two that mean different things are not told apart where they are read."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in SRC.glob("**/*.py"))
    classes = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, times in classes.items() if times > 1] == []
