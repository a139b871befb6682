"""Plots of weight and input distributions from records: ``python -m src.distributions outputs model=whisper_tiny``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from src.errors import UserError
from src.records import Record
from src.terminal import console

_DESCRIPTION = """\
Plots, linear by linear, what makes a model hard to quantize (kurtosis, peak and outlier channels of weights and inputs)
and the signal to quantization noise that each method reached. Reads records; nothing is run.
"""
_EXAMPLES = """\
examples:
  python -m src.distributions outputs                                   every model and bit-config
  python -m src.distributions outputs model=whisper_tiny method=rtn,quarot 'bits=w4*'
"""
_FILTERS = ("model", "method", "bits", "dataset")


def main() -> None:
    """Command line; exits with 1 after a mistake that the user can mend."""
    options = _parser().parse_intermixed_args()
    from src.reporting.distributions import plot_distributions
    from src.reporting.reading import read_records

    with console.plain_errors():
        found, notes = read_records(options.outputs)
        sys.stderr.write("".join(f"{note}\n" for note in notes))
        records = _chosen((each for each in found if not each.members), options.filters)  # a member has its own
        for path in plot_distributions(records, options.to or options.outputs / "distributions"):
            print(path)


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m src.distributions", None, _DESCRIPTION, _EXAMPLES, formatter_class=layout
    )
    parser.add_argument("outputs", type=Path, help="the output_dir of the points")
    told = f"keep matching records; columns are {', '.join(_FILTERS)}; values with , * ?"
    parser.add_argument("filters", nargs="*", metavar="column=value", help=told)
    parser.add_argument("--to", type=Path, metavar="DIR", help="where PNG files go (default: OUTPUTS/distributions)")
    return parser


def _chosen(records: Iterable[Record], filters: Iterable[str]) -> list[Record]:
    chosen = list(records)
    for text in filters:
        column, _, patterns = text.partition("=")
        if column not in _FILTERS:
            raise UserError("filter", f"{text!r} is not column=value", f"Columns are {', '.join(_FILTERS)}")
        named = patterns.split(",")
        chosen = [each for each in chosen if any(fnmatchcase(getattr(each, column), one) for one in named)]
        if not chosen:
            raise UserError(
                "filter", f"{column} matches no record with {patterns!r}", "Leave the filter out to see all"
            )
    return chosen


if __name__ == "__main__":
    main()
