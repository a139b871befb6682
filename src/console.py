"""What a person sees at the end: one table of points, best first, and errors as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

NAMES = ("model", "method", "bits", "dataset")
FIGURES = ("WER", "95% CI", "vs fp", "MB", "I/O MB", "GBOP")  # WER in percent, its difference in points
LEGEND = "* significant: the 95 % interval of the difference from fp leaves out zero. No star: not significant."
UNLIMITED = 10_000  # columns; a file has no width, so nothing is folded there


def show(records: Sequence[dict[str, Any]]) -> None:
    """Prints one row per record, lowest WER first; points without a WER come last. A composite's members precede it.

    A star marks a WER that differs significantly from full precision; a line below the table says so.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for name in NAMES:
        table.add_column(name, overflow="fold")
    for figure in FIGURES:
        table.add_column(figure, justify="right", no_wrap=True)
    for record in sorted(records, key=_wer):
        for member in record.get("members", ()):
            table.add_row(*_row(member))
        table.add_row(*_row(record))
    console = _stdout()
    console.print(table)
    if any("evaluate" in record["results"] for record in records):
        console.print(LEGEND, style="dim", highlight=False)


def show_comparison(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], about: str) -> None:
    """Prints one column per record, one row per figure (its label and a cell a record), and ``about`` below."""
    table = Table("record", *names, box=SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for label, cells in rows:
        table.add_row(label, *cells)
    console = _stdout()
    console.print(table)
    console.print(about, style="dim", highlight=False)


def _stdout() -> Console:
    return _wide(Console(markup=False, emoji=False))


def _wide(console: Console) -> Console:
    """As wide as the terminal; a file has no width."""
    if not console.is_terminal:
        console.width = UNLIMITED
    return console


def show_failures(failures: Sequence[tuple[str, dict[str, Any], str]], folder: Path) -> None:
    """Prints one row per failed job, on the error stream: its number, its failure record, its log within ``folder``."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for name in ("#", *NAMES, "stage", "reason", "log"):
        table.add_column(name, overflow="fold")
    for number, record, log in failures:
        names = (str(record[name] or "-") for name in NAMES)
        table.add_row(number, *names, record["failure"]["stage"] or "-", record["failure"]["reason"], log)
    console = _wide(Console(stderr=True, markup=False, emoji=False, highlight=False))
    console.print("\nFailed:", style="bold")
    console.print(table)
    console.print(f"Logs are in {folder}", style="dim", soft_wrap=True)


def command(line: str) -> None:
    """A command to be copied, on the error stream, whole and unwrapped."""
    Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False).print(f"  {line}")


def error(message: str) -> None:
    """One line on the error stream, as it is."""
    console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
    console.print(f"Error: {message}", style="red")


def _wer(record: dict[str, Any]) -> float:
    return float(record["results"].get("evaluate", {}).get("wer", "inf"))


def _row(record: dict[str, Any]) -> list[str]:
    results = record["results"]
    evaluated, profiled = results.get("evaluate"), results.get("profile")
    cells = [record["model"], record["method"], _precision(record), record["dataset"]]
    if "members" in record:
        cells[-1] += f" (mean of {len(record['members'])})"
    cells += _scores(evaluated) if evaluated else ["-"] * 3
    size = results.get("quantize", {}).get("disk_bytes")
    cells.append(f"{size / 1e6:.2f}" if size else "-")
    cells += [f"{profiled['memory_io_bytes'] / 1e6:.1f}", f"{profiled['bops'] / 1e9:.0f}"] if profiled else ["-"] * 2
    return cells


def _precision(record: dict[str, Any]) -> str:
    """Bits, and the type evaluate computed in where it is not float32."""
    dtype = record.get("dtype", "float32")
    return str(record["bits"]) if dtype == "float32" else f"{record['bits']} {dtype}"


def _scores(evaluated: dict[str, Any]) -> list[str]:
    difference = evaluated["versus_fp"]
    significant = "*" if difference["significant"] else ""
    interval = f"{evaluated['wer_low']:.2f}-{evaluated['wer_high']:.2f}"
    return [f"{evaluated['wer']:.2f}", interval, f"{difference['difference']:+.2f}{significant}"]
