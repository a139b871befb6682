"""Tables, plots and a page from records: ``python -m src.report outputs method=rtn,gptq dataset=sandbox_other``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from src.metrics import METRICS, WER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from src.records import Race

_DESCRIPTION = """\
Tables, plots and one HTML page from the records of finished points. Nothing is run.

Prints a table of word error rates (95 % interval; * significantly different from full precision; **lowest of the
column**), and writes into a folder: the table as Markdown, LaTeX and CSV, plots as PNG and SVG (error rate against bits
and against costs, kinds of error, error by layer, races of hydra/sweeper=fit), and index.html, which holds all points,
the races, the transcripts that changed with their audio, and what failed. Open it in a browser: it needs no network and
no other file.
"""
_EXAMPLES = """\
examples:
  python -m src.report outputs                                        everything, into outputs/report
  python -m src.report outputs 'bits=w*a16' dataset=sandbox_other    only some of the points
  python -m src.report outputs --columns dataset                      test sets side by side, with their mean
  python -m src.report outputs --to /tmp/report --transcripts 16      more transcripts, into another folder
  python -m src.report outputs --format csv > points.csv              one table and no files
"""


def main() -> None:
    """Command line; exits with 1 after a mistake that the user can mend."""
    options = _parser().parse_intermixed_args()
    from src.runs.attempt import settle
    from src.terminal import console

    settle(options.outputs)  # jobs that died without a word, whose launcher may have died, too
    with console.plain_errors():
        _report(options)


def _report(options: argparse.Namespace) -> None:
    from src.reporting.failed import failed
    from src.reporting.folder import PAGE, Limits, write_report
    from src.reporting.races import read_races
    from src.reporting.tables import Layout, render

    layout = Layout(options.rows, options.columns, options.metric)
    failures = failed(options.outputs)
    races, damaged = read_races(options.outputs)
    points, notes = _points(options, races, may_be_empty=bool(failures) and options.format is None)
    notes += damaged
    if options.format is not None:
        sys.stdout.write(render(points, layout, options.format))
        sys.stderr.write("".join(f"{note}\n" for note in notes))
        return
    folder = options.to or options.outputs / "report"
    limits = Limits(options.transcripts, options.audio_mb, options.plots)
    report = write_report(options.outputs, folder, points, failures, layout, limits, notes, races)
    sys.stdout.write(report.table)
    page = folder / PAGE
    noun = "point" if len(failures) == 1 else "points"
    told = [*report.notes, *([f"{len(failures)} {noun} failed; the page says why"] if failures else [])]
    plots = sum(file.suffix == ".png" for file in report.files)
    told.append(f"{page} ({page.stat().st_size / 1e6:.1f} MB), tables and {plots} plots are in {folder}")
    sys.stderr.write("".join(f"{sentence}\n" for sentence in ("", *told)))


def _points(
    options: argparse.Namespace, races: Sequence[Race], *, may_be_empty: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The chosen points, and sentences on records that are left out."""
    import pandas as pd

    from src.reporting.collect import choose, collect, composites
    from src.reporting.races import without_parts
    from src.reporting.reading import damaged_entries, read_records

    if may_be_empty and not any((options.outputs / "records").glob("*.json")):
        return pd.DataFrame(), []
    records, notes = read_records(options.outputs)
    whole = without_parts(records, races)
    points = choose(collect(whole), options.filters, composites(whole))
    return points, [*notes, *damaged_entries(options.outputs, records)]


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m src.report", None, _DESCRIPTION, _EXAMPLES, formatter_class=layout)
    parser.add_argument("outputs", type=Path, help="the output_dir of the points")
    parser.add_argument("filters", nargs="*", metavar="column=value", help="keep matching points; values with , * ?")
    parser.add_argument("--rows", default="method", help="of the tables: what differs between rows (default: method)")
    parser.add_argument("--columns", default="bits", help="what differs between columns (default: bits)")
    metric = f"what tables show: {', '.join(METRICS)} (default: wer)"
    parser.add_argument("--metric", default=WER.name, metavar="NAME", help=metric)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where files go (default: report in outputs)")
    parser.add_argument(
        "--format", choices=("markdown", "latex", "csv"), help="print the table in this form, and write no files"
    )
    per_point = "changed transcripts a point in the page, the worst first (default: 10; 16 are stored)"
    parser.add_argument("--transcripts", type=_amount, default=10, metavar="N", help=per_point)
    audio = "audio in the page, clips that most points changed first (default: 12; 0: none)"
    parser.add_argument("--audio-mb", type=_amount, default=12, metavar="MB", help=audio)
    plots = "pairs of model and test set that get plot files, largest first (default: 4; 0: none)"
    parser.add_argument("--plots", type=_amount, default=4, metavar="N", help=plots)
    return parser


def _amount(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


if __name__ == "__main__":
    main()
