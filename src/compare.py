"""Is one record's WER different from another's? ``python -m src.compare BASE OTHER [OTHER ...]`` says so in a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from src.terminal import console

DESCRIPTION = """\
Compares the stored transcripts of points that were evaluated on the same utterances. Nothing is decoded.

Each OTHER is compared with BASE by a paired bootstrap: both are scored on the same resamples of the test set, of
speakers where at least five are known, else of utterances. A difference is significant where its 95 % interval leaves
out zero. "prob. of improvement" is the share of resamples in which OTHER makes fewer errors than BASE.

A record is named by its file or by the first characters of its fingerprint, the name of its file in DIR/records.
"""
EXAMPLES = """\
examples:
  python -m src.compare 1a2b 3c4d                    two records of ./outputs
  python -m src.compare 1a2b 3c4d 5e6f               two against the first
  python -m src.compare a/records/1a2b0c9d8e7f6a5b.json b/records/3c4d1e2f3a4b5c6d.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the comparison; exits with 1 after a mistake that the user can mend."""
    options = _parser().parse_args(arguments)
    from src.reporting.archive import opened
    from src.reporting.compared import compared  # takes a second, which --help need not wait for
    from src.reporting.stored import find, require_comparable

    with console.plain_errors(), opened(options.output_dir) as outputs:
        evaluated = [find(name, outputs) for name in (options.base, *options.others)]
        for other in evaluated[1:]:
            require_comparable(evaluated[0], other)
        console.show_comparison(*compared(evaluated, options.samples, options.seed))


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m src.compare", None, DESCRIPTION, EXAMPLES, formatter_class=layout)
    parser.add_argument("base", metavar="BASE", help="the record that the others are compared with")
    parser.add_argument("others", metavar="OTHER", nargs="+", help="records to compare with it")
    folder = "where records named by their fingerprint are: an output_dir, or what src.report --pack made of one"
    parser.add_argument("--output-dir", type=Path, metavar="DIR", default=Path("outputs"), help=folder)
    samples = "bootstrap resamples, at least 100 (default: as many as for BASE's own intervals)"
    parser.add_argument("--samples", type=_at_least(100), metavar="N", help=samples)
    parser.add_argument("--seed", type=_at_least(0), metavar="N", help="of the resamples (default: BASE's seed)")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    number.__name__ = "number"  # what argparse calls a value that is none
    return number


if __name__ == "__main__":
    main()
