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
  python -m src.report outputs --means --best                         means over test sets; what ties with the best
  python -m src.report outputs method=gptq --pack gptq.tar.xz         add them to a file that is read like outputs
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
        from src.reporting.archive import opened

        with opened(options.outputs) as outputs:
            _report(outputs, options)


def _report(outputs: Path, options: argparse.Namespace) -> None:
    """Of the records below ``outputs``, which is what the options name or what an archive of that name holds."""
    from src.reporting.failed import failed
    from src.reporting.folder import PAGE, Limits, write_report
    from src.reporting.races import read_races
    from src.reporting.significance import PairedTests
    from src.reporting.tables import Layout, render

    layout = Layout(options.rows, options.columns, options.metric)
    failures = failed(outputs)
    races, damaged = read_races(outputs)
    writes = options.format is None and options.pack is None
    points, notes = _points(outputs, options, races, may_be_empty=bool(failures) and writes)
    notes += damaged
    tests = PairedTests(outputs) if options.best else None
    if options.format is not None:
        sys.stdout.write(render(points, layout, options.format, tests))
    if not writes:
        sys.stderr.write("".join(f"{note}\n" for note in notes))
        return
    folder = options.to or (outputs if outputs == options.outputs else options.outputs.parent) / "report"
    limits = Limits(0 if options.means else options.transcripts, options.audio_mb, options.plots)
    report = write_report(outputs, folder, points, failures, layout, limits, notes, races, tests)
    sys.stdout.write(report.table)
    page = folder / PAGE
    noun = "point" if len(failures) == 1 else "points"
    told = [*report.notes, *([f"{len(failures)} {noun} failed; the page says why"] if failures else [])]
    plots = sum(file.suffix == ".png" for file in report.files)
    told.append(f"{page} ({page.stat().st_size / 1e6:.1f} MB), tables and {plots} plots are in {folder}")
    sys.stderr.write("".join(f"{sentence}\n" for sentence in ("", *told)))


def _points(
    outputs: Path, options: argparse.Namespace, races: Sequence[Race], *, may_be_empty: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The chosen points, and sentences on records that are left out and on what was packed."""
    import pandas as pd

    from src.reporting.archive import pack
    from src.reporting.collect import choose, collect, composites
    from src.reporting.races import without_parts
    from src.reporting.reading import damaged_entries, read_records

    if may_be_empty and not any((outputs / "records").glob("*.json")):
        return pd.DataFrame(), []
    records, notes = read_records(outputs)
    whole = without_parts(records, races)
    points = choose(collect(whole, means=options.means), options.filters, composites(whole))
    notes += damaged_entries(outputs, records)
    if options.pack is not None:
        held = pack(outputs, records, set(points["fingerprint"]), options.pack)
        notes.append(f"{options.pack} ({options.pack.stat().st_size / 1e6:.1f} MB) holds {held} records")
    return points, notes


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m src.report", None, _DESCRIPTION, _EXAMPLES, formatter_class=layout)
    parser.add_argument("outputs", type=Path, help="the output_dir of the points, or a file that --pack made of one")
    parser.add_argument("filters", nargs="*", metavar="column=value", help="keep matching points; values with , * ?")
    parser.add_argument("--rows", default="method", help="of the tables: what differs between rows (default: method)")
    parser.add_argument("--columns", default="bits", help="what differs between columns (default: bits)")
    metric = f"what tables show: {', '.join(METRICS)} (default: wer)"
    parser.add_argument("--metric", default=WER.name, metavar="NAME", help=metric)
    parser.add_argument("--means", action="store_true", help="show means over several test sets as points")
    best = "mark with ≈ what is not told from the best of its column; Holm's correction over a table, for stars too"
    parser.add_argument("--best", action="store_true", help=best)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where files go (default: report in outputs)")
    parser.add_argument(
        "--format", choices=("markdown", "latex", "csv"), help="print the table in this form, and write no files"
    )
    pack = "add the points and their transcripts to a .tar.xz file, and write no other files"
    parser.add_argument("--pack", type=Path, metavar="FILE", help=pack)
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
