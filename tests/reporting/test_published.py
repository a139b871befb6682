"""Published tables are what their command makes of the published records."""

from __future__ import annotations

import pytest

from src.project import ROOT
from tests.benchmarks.published import PAGES, printed, tables

FOUND = {
    " ".join(arguments): (arguments, table)
    for page in PAGES
    for arguments, table in tables(page.read_text(encoding="utf-8"))
}


def test_there_are_tables() -> None:
    assert FOUND


@pytest.mark.parametrize("command", FOUND)
def test_a_published_table_is_what_its_command_prints(command: str) -> None:
    arguments, table = FOUND[command]
    assert printed(arguments) == table


def test_the_records_stay_small() -> None:
    assert (ROOT / "src" / "published" / "records.tar.xz").stat().st_size < 5e6
