"""What a person sees at the end: one table of points, best first, and errors as sentences."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from src.errors import UserError, unwritable
from src.metrics import COSTS, SCORES, WER, Metric
from src.records import Entrant, Member, Race, Record, Results
from src.storage.redaction import redact_text, without_secrets

NAMES = ("model", "method", "bits", "dataset")
INTERVAL = ("95% CI", "vs fp")  # beside the WER; in percent and in points
LEGEND = "* significant: the 95 % interval of the difference from fp leaves out zero. No star: not significant."
PLACES = {"tracking", "output_dir", "stages", "export", "device"}  # settings that no figure of the table depends on
TEXTS = 2  # columns of show_measured that are words
_STYLE: Final[dict[str, Any]] = {
    "box": SIMPLE_HEAD,
    "header_style": "bold",
    "show_edge": False,
    "padding": (0, 1, 0, 0),
}
UNLIMITED = 10_000  # columns; a file has no width, so nothing is folded there


def show(records: Sequence[Record]) -> None:
    """Prints one row per record, lowest WER first; points without a WER come last. A composite's members precede it.

    Where characters are scored, not words, CER stands for WER: in the heading, or in the cells of those below the
    others. A star marks a WER that differs significantly from full precision; a line below the table says so. Where
    records have the same names, columns follow for the settings that tell them apart.
    """
    apart = _apart(records)
    table = Table(**_STYLE)
    for name in (*NAMES, *apart):
        table.add_column(name, overflow="fold")
    metrics = sorted(filter(None, {_metric(record) for record in records}), reverse=True)
    beside = _beside(records)
    for figure in (", ".join(metrics) or WER.heading, *INTERVAL, *(metric.heading for metric in beside)):
        table.add_column(figure, justify="right", no_wrap=True)
    for record in sorted(records, key=lambda record: (_metric(record) == "CER", _wer(record))):
        for member in record.members:
            table.add_row(*_row(member, [""] * len(apart), metrics, beside))
        values = [str(record.flat_settings.get(name, "-")) for name in apart]
        table.add_row(*_row(record, values, metrics, beside))
    console = _stdout()
    console.print(table)
    if any(record.results.evaluate for record in records):
        console.print(LEGEND, style="dim", highlight=False)
    from src.machine.provenance import differing

    if fields := differing(record.provenance for record in records):
        told = f"Not all of this was made in one place: {', '.join(fields)} differ."
        console.print(f"{told} Each record says where its results were.", style="dim", highlight=False)


def show_measured(records: Sequence[Record]) -> None:
    """Prints one row per runtime that was timed, each once, and below what they have in common; nothing without any.

    What was timed elsewhere, or otherwise, is in a table of its own.
    """
    timed = [found for record in records if (found := record.measured.runtimes) is not None]
    if not timed:
        return
    from src.profiling.measured_table import COLUMNS, about, cells, place

    console = _stdout()
    for where in dict.fromkeys(map(place, timed)):
        here = [each for each in timed if place(each) == where]
        table = Table("model", **_STYLE)
        for number, name in enumerate(COLUMNS):
            table.add_column(name, justify="left" if number < TEXTS else "right", no_wrap=number >= TEXTS)
        rows = [(each["model"], *cells(row)) for each in here for row in each["rows"]]
        for row in dict.fromkeys(rows):
            table.add_row(*row)
        console.print(table)
        for line in dict.fromkeys(map(about, here)):
            console.print(line, style="dim", highlight=False)


def show_comparison(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], about: str) -> None:
    """Prints one column per record, one row per figure (its label and a cell a record), and ``about`` below."""
    _print(["record", *names], [(label, *cells) for label, cells in rows], about)


def show_front(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the best points of a search, lowest first objective first."""
    _print(header, rows, "Pareto front: no other point is as good in all objectives and better in one.")


def show_race(race: Race) -> None:
    """Prints how the candidates of a race fared, the chosen one first, and how well what was cheap foretold it."""
    rounds = ["all" if clips is None else f"{clips} clips" for clips in race.rounds]
    rows = [_fared(each, race) for each in race.ranked]
    header = ["candidate", "MB", *(f"{race.metric or WER.heading}, {heard}" for heard in rounds), "95% CI", "front", ""]
    told = f"{race.title}: {len(race.candidates)} candidates, {race.heard} utterances decoded."
    below = (
        f"{told[0].upper()}{told[1:]} Differences are to the best of the round; intervals are of 95 %, the CI that of "
        "the last round heard. On the front: no other one as small or smaller had a lower error rate on the most clips "
        "that both were heard on."
    )
    _print(header, rows, below)
    if race.agreements:
        agreements: dict[tuple[str, str], dict[int | None, str]] = {}
        for each in race.agreements:
            cells = agreements.setdefault((each.proxy, each.model or "all"), {})
            cells[each.clips] = f"{each.spearman:+.2f} ({each.candidates})"
        _print(
            ["foretold by", "model", *rounds],
            [(*names, *(cells.get(clips, "-") for clips in race.rounds)) for names, cells in agreements.items()],
            "Spearman's rank correlation with the error rate of each round, and of how many candidates.",
        )


def _fared(each: Entrant, race: Race) -> list[str]:
    heard = {one.clips: one.wer for one in each.rounds}
    rates = [WER.text(heard.get(clips)) for clips in race.rounds]
    interval = f"{WER.text(each.rounds[-1].wer_low)}-{WER.text(each.rounds[-1].wer_high)}" if each.rounds else "-"
    size = "-" if each.megabytes is None else f"{each.megabytes:.2f}"
    return [each.name, size, *rates, interval, "front" if each.front else "", each.outcome]


def _print(header: Sequence[str], rows: Iterable[Sequence[str]], below: str) -> None:
    table = Table(*header, **_STYLE)
    for row in rows:
        table.add_row(*row)
    console = _stdout()
    console.print(table)
    console.print(below, style="dim", highlight=False)


def _stdout() -> Console:
    return _wide(Console(markup=False, emoji=False))


def _wide(console: Console) -> Console:
    """As wide as the terminal; a file has no width."""
    if not console.is_terminal:
        console.width = UNLIMITED
    return console


def show_failures(failures: Sequence[tuple[str, dict[str, Any], str]], folder: Path) -> None:
    """Prints one row per failed job, on the error stream: its number, its failure record, its log within ``folder``."""
    table = Table(**_STYLE)
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
    """A command to be copied, on the error stream, whole and unwrapped, without keys and tokens."""
    console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
    console.print(f"  {without_secrets(line)}")


def error(message: str) -> None:
    """One line on the error stream, as it is but for keys, tokens and the home directory."""
    console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
    console.print(f"Error: {redact_text(message)}", style="red")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Ends the process with one line and exit code 1 after a mistake that the user can mend.

    Without a line where nobody reads on, as in ``| head``.
    """
    try:
        yield
        sys.stdout.flush()
    except UserError as mistake:
        error(" ".join(str(mistake).split()))
        sys.exit(1)
    except BrokenPipeError:
        if not _unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written when Python ends
        sys.exit(1)
    except OSError as problem:
        told = unwritable(problem, "choose another folder")
        if told is None:
            raise
        error(str(told))
        sys.exit(1)


def _unread() -> bool:
    """Whether it is the output that nobody reads, and not another pipe that broke."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # 0: errors only
    return bool(output.poll(0))


def _metric(record: Member) -> str | None:
    """WER, or CER where characters are scored; None where nothing is."""
    return record.results.evaluate.metric if record.results.evaluate else None


def _wer(record: Member) -> float:
    return record.results.evaluate.wer if record.results.evaluate else inf


def _apart(records: Sequence[Record]) -> list[str]:
    """Settings in which records of the same names differ, beyond what their names tell."""
    twins: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        name = (record.model, record.method, record.precision, record.dataset)
        twins.setdefault(name, []).append(record.flat_settings)
    differing = {
        key
        for same in twins.values()
        for key in set().union(*same)
        if key.split(".")[0] not in PLACES and len({str(each.get(key)) for each in same}) > 1
    }
    named = {key.removesuffix(".name") for key in differing if key.endswith(".name")}
    return sorted(key for key in differing if key.endswith(".name") or not any(key.startswith(f"{n}.") for n in named))


def _beside(records: Sequence[Record]) -> list[Metric]:
    """What has a column beside the WER: costs, and those scores that some record has."""
    scores = [each for each in SCORES if any(record.results.figure(each) is not None for record in records)]
    return [each for each in (*scores, *COSTS) if each.heading and each is not WER]


def _row(record: Member, apart: Sequence[str], metrics: Sequence[str], beside: Sequence[Metric]) -> list[str]:
    cells = [record.model, record.method, record.precision, record.dataset]
    if isinstance(record, Record) and record.members:
        cells[-1] += f" (mean of {len(record.members)})"
    scores = _scores(record.results)
    if len(metrics) > 1 and _metric(record) == "CER":
        scores[0] += " CER"
    return [*cells, *apart, *scores, *(metric.text(record.results.figure(metric)) for metric in beside)]


def _scores(results: Results) -> list[str]:
    if results.evaluate is None:
        return ["-"] * (1 + len(INTERVAL))
    difference = results.evaluate.versus_fp
    wer, low, high = map(WER.text, results.figures(WER).values())
    return [wer, f"{low}-{high}", f"{difference.difference:+.2f}{'*' if difference.significant else ''}"]
