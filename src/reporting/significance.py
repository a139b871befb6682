"""What a table of error rates shows beyond chance: against full precision, and against the best of each column.

A table of fifty cells has two or three that look different by luck alone. All tests of one table, of either question,
are one family under Holm's correction (:mod:`src.scoring.holm`), at 5 %.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from src.errors import UserError
from src.reporting.collect import BESIDE
from src.reporting.stored import RUN_AGAIN
from src.scoring.comparison import Scored, scored
from src.scoring.holm import holm
from src.scoring.mean import mean_difference
from src.storage.integrity import damage
from src.text.normalizers import Rules

LEVEL: Final = 0.05

Cell = tuple[Hashable, Hashable]  # row and column of a table
Run = list[Scored]  # one a test set


@dataclass(frozen=True)
class Verdicts:
    """Cells of one table.

    Attributes:
        differ: significantly unlike full precision.
        best: worse than the best of their column, but not significantly.
    """

    differ: set[Cell]
    best: set[Cell]


@dataclass
class PairedTests:
    """Paired tests between the cells of tables, by the transcripts stored below ``output_dir``."""

    output_dir: Path
    _read: dict[tuple[str, str], Scored] = field(default_factory=dict)

    def verdicts(self, cells: dict[Cell, pd.DataFrame], means: dict[Cell, float]) -> Verdicts:
        """Of the cells of one table, each with its points (one, or one a seed) and their mean WER.

        Raises:
            UserError: transcripts are absent or damaged.
        """
        versus_fp = {cell: float(points["diff_p_value"].max()) for cell, points in cells.items()}
        versus_best: dict[Cell, float] = {}
        for column in {column for _, column in cells}:
            first, *others = sorted((cell for cell in cells if cell[1] == column), key=means.__getitem__)
            worse = [cell for cell in others if means[cell] > means[first]]
            versus_best |= {cell: self._p_value(cells[cell], cells[first]) for cell in worse}
        adjusted = holm([*versus_fp.values(), *versus_best.values()])
        from_fp, from_best = adjusted[: len(versus_fp)], adjusted[len(versus_fp) :]
        return Verdicts(
            differ={cell for cell, p_value in zip(versus_fp, from_fp, strict=True) if p_value <= LEVEL},
            best={cell for cell, p_value in zip(versus_best, from_best, strict=True) if p_value > LEVEL},
        )

    def _p_value(self, own: pd.DataFrame, best: pd.DataFrame) -> float:
        """Of no difference between two cells of one test set, or of one mean over several."""
        ours, theirs = ([self._run(point) for point in points.to_dict("records")] for points in (own, best))
        for position, base in enumerate(theirs[0]):
            if any(_utterances(run[position]) != _utterances(base) for run in (*ours, *theirs)):
                names = " and ".join(str(points["fingerprint"].iloc[0]) for points in (own, best))
                raise UserError("outputs", f"{names} are not of the same utterances", "Choose points that are")
        samples = int(best["evaluate.bootstrap_samples"].iloc[0])
        labels = [each.blocks.labels for each in theirs[0]]
        runs = [[[each.scores for each in run] for run in system] for system in (ours, theirs)]
        return float(mean_difference(runs[0], runs[1], labels, samples, int(best["seed"].min()))["p_value"])

    def _run(self, point: dict[Hashable, Any]) -> Run:
        return [self._scored(name, str(point["normalizer"])) for name in str(point["transcripts"]).split(BESIDE)]

    def _scored(self, name: str, normalizer: str) -> Scored:
        if (name, normalizer) not in self._read:
            folder = self.output_dir / "cache" / "transcripts" / name
            if (problem := damage(folder)) is not None:
                raise UserError("outputs", f"the transcripts in {folder} cannot be read ({problem})", RUN_AGAIN)
            self._read[name, normalizer] = scored(folder / "transcripts.jsonl", Rules.named(normalizer))
        return self._read[name, normalizer]


def _utterances(each: Scored) -> Sequence[tuple[str, str]]:
    return [(item.id, item.reference) for item in each.transcripts]
