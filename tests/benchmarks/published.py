"""Fills the tables of a page from the commands above them: ``python -m tests.benchmarks.published [FILE ...]``.

A table stands between ``<!-- python -m src.report ... -->`` and ``<!-- end -->`` and is what the command prints, run in
the project's folder. Without files: the page of published results and README.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from src.project import ROOT

PAGES: Final = (ROOT / "src" / "published" / "README.md", ROOT / "README.md")
_TABLE: Final = re.compile(r"<!-- python -m (src\.report .*?) -->\n(.*?)<!-- end -->", re.DOTALL)


def tables(page: str) -> list[tuple[list[str], str]]:
    """Arguments of ``python -m``, and the table below, for every command of a page."""
    return [(shlex.split(command), table.strip()) for command, table in _TABLE.findall(page)]


def printed(arguments: list[str]) -> str:
    """What ``python -m`` prints with them."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def filled(page: str) -> str:
    """The page with its tables made anew."""
    return _TABLE.sub(
        lambda found: f"<!-- python -m {found[1]} -->\n{printed(shlex.split(found[1]))}\n<!-- end -->", page
    )


def main() -> None:
    for page in map(Path, sys.argv[1:] or PAGES):
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text), encoding="utf-8")
        print(f"{page}: {len(tables(text))} tables")


if __name__ == "__main__":
    main()
