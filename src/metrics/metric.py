"""What is told of a figure by which points are compared, wherever it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jiwer import WordOutput

    from src.text.normalizers import Rules

Counts = tuple[Sequence[int], Sequence[int]]  # errors, and what they are errors of, each by utterance


@dataclass(frozen=True)
class Metric:
    """A figure of a record; where it is counted by utterance, ``name_low`` and ``name_high`` are its 95 % interval.

    Attributes:
        name: in the result of its stage, as a W&B key, as a column and as an objective of a search.
        stage: whose result holds it.
        unit: as it is stored.
        meaning: in a few words.
        label: on an axis or beside a cell, with the unit that is shown.
        heading: of a column; tables of many figures are without those that have none.
        digits: shown behind the point.
        scale: one shown unit in stored ones.
        lower_is_better: else higher.
        counts: of a rate over a test set, from the alignment behind the WER; gives None where the rules that the texts
            were normalised by have no such thing. None for figures that are no such rate.
    """

    name: str
    stage: str
    unit: str
    meaning: str
    label: str
    heading: str
    digits: int
    scale: float = 1.0
    lower_is_better: bool = True
    counts: Callable[[WordOutput, Rules], Counts | None] | None = None

    @property
    def described(self) -> dict[str, str]:
        """Meaning of the figure and of the ends of its interval, by name."""
        low, high = f"{self.name}_low", f"{self.name}_high"
        ends = {low: f"lower end of its 95 % bootstrap interval, {self.unit}", high: f"upper end, {self.unit}"}
        return {self.name: f"{self.meaning}, {self.unit}", **(ends if self.counts else {})}

    def text(self, figure: float | None) -> str:
        """For people, in the unit that is shown; a dash where it is not known."""
        return "-" if figure is None else f"{figure / self.scale:.{self.digits}f}"

    def interval_text(self, figures: Mapping[str, float | None]) -> str:
        """With its interval, ``4.00 (2.00 to 6.00)``."""
        figure, low, high = (figures.get(name) for name in self.described)
        ends = "no interval" if low is None or high is None else f"{self.text(low)} to {self.text(high)}"
        return "-" if figure is None else f"{self.text(figure)} ({ends})"
