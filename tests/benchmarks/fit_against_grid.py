"""What a race for a budget loses against all points of a grid, and what it saves.

    python -m tests.benchmarks.fit_against_grid GRID 2 3 --races RACES

reads the records below ``GRID``, an ``output_dir``, and the races of ``hydra/sweeper=fit`` below ``RACES`` (the same
folder if not given), and prints a row for each budget in MB: the point of the grid with the lowest error rate among
those that fit, what the race for that budget chose, the paired difference between the two with its 95 % interval, and
how many candidates were quantized and how many utterances decoded for each, without those of the baselines. Nothing is
decoded. The grid's best one is the luckiest of many on the very clips that both are compared on, which errs against the
race. Of one folder, the grid's points are all that were heard to the end, those of races too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.errors import UserError
from src.metrics import METRICS
from src.records import Evaluated, Race, Record, read_whole
from src.reporting.compared import mean_difference
from src.reporting.races import read_races, without_parts
from src.reporting.reading import read_records
from src.reporting.stored import find_sets
from src.terminal import console

_MEGABYTE = 10**6


def scores(record: Record) -> Evaluated:
    found = record.results.evaluate
    assert found is not None  # of what is compared
    return found


def megabytes(record: Record) -> float:
    size = record.results.figure(METRICS["disk_bytes"])
    return float("inf") if size is None else size / _MEGABYTE


def named(record: Record) -> str:
    return f"{record.model} {record.method} {record.bits}: {megabytes(record):.2f} MB, {scores(record).wer:.2f} %"


def race_for(budget: float, races: Sequence[Race]) -> Race:
    """The one race for a budget. Raises UserError."""
    found = [race for race in races if dict(race.bounds) == {"megabytes": budget} and race.chosen is not None]
    if len(found) != 1:
        names = ", ".join(race.name for race in found) or "none"
        problem = f"{len(found)} races for {budget:g} MB chose something ({names})"
        raise UserError("budgets", problem, "Leave one of them")
    return found[0]


def row(budget: float, race: Race, grid: Sequence[Record], folders: tuple[Path, Path]) -> dict[str, str]:
    """What stands in the table for a budget; ``folders`` are the grid's and the race's."""
    assert race.chosen is not None
    chosen = read_whole(folders[1] / "records" / f"{race.chosen.rounds[-1].record}.json")
    same = [
        each
        for each in grid
        if each.results.evaluate is not None and (each.dataset, each.subset) == (chosen.dataset, chosen.subset)
    ]
    best = min((each for each in same if megabytes(each) <= budget), key=lambda each: scores(each).wer, default=None)
    if best is None:
        problem = f"no point of the grid takes {budget:g} MB or less on {chosen.dataset}"
        raise UserError("budgets", problem, "Name larger ones")
    found = mean_difference(find_sets(chosen, folders[1]), find_sets(best, folders[0]))
    verdict = "worse" if found["significant"] and found["difference"] > 0 else "not significantly worse"
    return {
        "budget, MB": f"{budget:g}",
        "best of the grid": named(best),
        "chosen by the race": named(chosen),
        "difference": f"{found['difference']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f}): {verdict}",
        "grid: points, utterances": f"{len(same)}, {sum(scores(each).utterances for each in same)}",
        "race": f"{sum(each.record is not None for each in race.candidates)}, {race.heard}",
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("budgets", type=float, nargs="+")
    parser.add_argument("--races", type=Path)
    options = parser.parse_args()
    folder = options.races or options.grid
    with console.plain_errors():
        races, _ = read_races(folder)
        grid = without_parts(read_records(options.grid)[0], [*races, *read_races(options.grid)[0]])
        rows = [row(each, race_for(each, races), grid, (options.grid, folder)) for each in options.budgets]
        print(pd.DataFrame(rows).to_markdown(index=False))


if __name__ == "__main__":
    main()
