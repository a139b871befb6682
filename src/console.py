"""What a person sees at the end: one table of points, best first, and errors as sentences."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("model", "method", "bits", "dataset", "WER %", "95 % interval", "vs fp", "size MB", "memory I/O MB", "GBOPs")
NARROWEST = 120  # a file has no width; do not fold the table there


def show(records: Sequence[dict[str, Any]]) -> None:
    """Prints one row per record, lowest WER first; points without a WER come last."""
    table = Table(title=None, header_style="bold", expand=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:4] else "right", no_wrap=True)
    for record in sorted(records, key=_wer):
        table.add_row(*_row(record))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, NARROWEST))
    console.print(table)


def error(message: str) -> None:
    """One line on the error stream, without markup."""
    Console(stderr=True, soft_wrap=True).print(f"Error: {message}", style="red", markup=False, highlight=False)


def _wer(record: dict[str, Any]) -> float:
    return float(record["results"].get("evaluate", {}).get("wer", "inf"))


def _row(record: dict[str, Any]) -> list[str]:
    results = record["results"]
    evaluated, profiled = results.get("evaluate"), results.get("profile")
    cells = [record["model"], record["method"], record["bits"], record["dataset"]]
    cells += _scores(evaluated) if evaluated else ["-"] * 3
    size = results.get("quantize", {}).get("disk_bytes")
    cells.append(f"{size / 1e6:.2f}" if size else "-")
    cells += [f"{profiled['memory_io_bytes'] / 1e6:.1f}", f"{profiled['bops'] / 1e9:.0f}"] if profiled else ["-"] * 2
    return cells


def _scores(evaluated: dict[str, Any]) -> list[str]:
    difference = evaluated["versus_fp"]
    significant = "*" if not difference["low"] <= 0 <= difference["high"] else ""
    interval = f"{evaluated['wer_low']:.2f}-{evaluated['wer_high']:.2f}"
    return [f"{evaluated['wer']:.2f}", interval, f"{difference['difference']:+.2f}{significant}"]


def is_interactive() -> bool:
    """Whether a person watches the error stream, where progress bars go."""
    return sys.stderr.isatty()
