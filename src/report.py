"""Prints tables from records: ``python -m src.report outputs method=rtn,gptq dataset=embedded_other``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src.errors import UserError

_EXAMPLES = """examples:
  python -m src.report outputs                                        a table for each model and test set
  python -m src.report outputs 'bits=w*a16' dataset=embedded_other    only some of the points
  python -m src.report outputs --columns dataset                      test sets side by side, with their mean
  python -m src.report outputs --format csv > points.csv              every figure and setting, one line a point
"""


def main() -> None:
    """Command line; exits with 1 after a mistake that the user can mend."""
    arguments = _parser().parse_intermixed_args()
    from src import console
    from src.attempt import settle
    from src.reporting.collect import choose, collect
    from src.reporting.tables import Layout, render

    settle(arguments.outputs)  # jobs that died without a word, whose launcher may have died, too
    try:
        layout = Layout(arguments.rows, arguments.columns)
        points = choose(collect(arguments.outputs), arguments.filters)
        sys.stdout.write(render(points, layout, arguments.format))
    except UserError as error:
        console.error(" ".join(str(error).split()))
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.report",
        description="Tables of word error rates (95 % interval; * significantly different from full precision; "
        "**lowest of the column**) from the records of finished points.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("outputs", type=Path, help="the output_dir of the points")
    parser.add_argument("filters", nargs="*", metavar="column=value", help="keep matching points; values with , * ?")
    parser.add_argument("--rows", default="method", help="what differs between rows (default: method)")
    parser.add_argument("--columns", default="bits", help="what differs between columns (default: bits)")
    parser.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown")
    return parser


if __name__ == "__main__":
    main()
