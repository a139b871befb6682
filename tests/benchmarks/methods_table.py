"""What a sweep of all methods tells: each against round-to-nearest at the same bits, test sets and seeds together.

``python -m tests.benchmarks.methods_table OUTPUTS`` reads what ``./launchers/experiment.sh methods output_dir=OUTPUTS``
left, and prints for each model a table of WER differences to ``rtn`` in points, with their 95 % intervals (over
speakers, of the mean over test sets' words and seeds) and a star where one leaves out zero. Nothing is decoded.
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.reporting.collect import choose, collect
from src.reporting.panels import rank
from src.reporting.reading import read_records
from src.reporting.stored import find
from src.scoring.bootstrap import PairedDifference, paired
from src.scoring.comparison import Scored, scored
from src.stages.decoding import TRANSCRIPTS
from src.text.normalizers import ENGLISH_RULES

BASE = "rtn"
SAMPLES = 10_000


@dataclass(frozen=True)
class Runs:
    """Word errors of one method on all test sets with all seeds: an entry for every utterance of every run."""

    keys: tuple[Hashable, ...]
    errors: np.ndarray
    words: np.ndarray
    speakers: tuple[Hashable, ...]

    @classmethod
    def of(cls, runs: dict[tuple[str, int], Scored]) -> Runs:
        """Runs by test set and seed, in the order of these."""
        ordered = sorted(runs.items())
        return cls(
            tuple((name, item.id) for name, run in ordered for item in run.transcripts),
            np.concatenate([run.scores.utterance_errors for _, run in ordered]),
            np.concatenate([run.scores.utterance_words for _, run in ordered]),
            tuple(label for _, run in ordered for label in run.blocks.labels),
        )

    def against(self, base: Runs) -> PairedDifference:
        """This method's WER less that of ``base``."""
        return paired(self.errors, base.errors, self.words, SAMPLES, 0, self.speakers)


def load(points: pd.DataFrame, outputs: Path) -> Runs:
    """The stored transcripts of these points, scored."""
    runs = {}
    for point in points.to_dict("records"):
        runs[str(point["dataset"]), int(point["seed"])] = scored(
            find(point["fingerprint"], outputs).folder / TRANSCRIPTS, ENGLISH_RULES
        )
    assert len(runs) == len(points), "they differ in more than test set and seed"
    return Runs.of(runs)


def compared(points: pd.DataFrame, outputs: Path) -> pd.DataFrame:
    """Differences to :data:`BASE` as text, methods by bits."""
    cells = {}
    for bits, same in points.groupby("bits"):
        runs = {method: load(own, outputs) for method, own in same.groupby("method")}
        for method, own in runs.items():
            if method != BASE and own.keys == runs[BASE].keys:  # else some are still to be run
                found = own.against(runs[BASE])
                star = r"\*" if found.significant else ""
                cells[method, bits] = f"{found.difference:+.2f}{star} ({found.low:+.1f} to {found.high:+.1f})"
    table = pd.Series(cells).unstack()
    return table.reindex(columns=sorted(table.columns, key=rank)).fillna("-")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("filters", nargs="*", metavar="column=value", help="as src.report takes them")
    options = parser.parse_args()
    points = choose(collect(read_records(options.outputs)[0]), options.filters, {})
    for model, own in points.groupby("model"):
        seeds = own.groupby("bits")["seed"].nunique()
        told = ", ".join(f"{bits}: {number}" for bits, number in seeds.items())
        print(f"\n### {model} (number of seeds: {told})\n")
        print(compared(own, options.outputs).to_markdown())


if __name__ == "__main__":
    main()
