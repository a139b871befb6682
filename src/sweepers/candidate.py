"""A candidate of a race: the records it has so far, and how they compare with another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from src.errors import UserError
from src.machine.logs import returned_or_raised
from src.metrics import METRICS
from src.records import Evaluated, Record

_MEGABYTE = 10**6


@dataclass
class Candidate:
    """A point in the race.

    Attributes:
        overrides: what makes it.
        sized: its record before anything was heard; None while there is none.
        heard: its records by the number of the round, in order; one that is alone in the race skips rounds.
        out: why it was heard no further; empty while it is in the race.
        told: how it fares, where it is still there.
        failure: its last job, if that failed.
        refusal: why it cannot be made, or what is to be made of it.
    """

    overrides: list[str]
    sized: Record | None = None
    heard: dict[int, Record] = field(default_factory=dict)
    out: str = ""
    told: str = ""
    failure: JobReturn | None = None
    refusal: UserError | None = None

    @property
    def name(self) -> str:
        return " ".join(self.overrides)

    @property
    def megabytes(self) -> float:
        assert self.sized is not None
        size = self.sized.results.figure(METRICS["disk_bytes"])
        assert size is not None  # of every quantized point
        return size / _MEGABYTE

    @property
    def rtf(self) -> float | None:
        """Seconds of computing a second of audio, at best, on the edge device; None without one."""
        assert self.sized is not None
        roofline: Mapping[str, Any] | None = self.sized.plain["results"]["profile"]["roofline"]
        return None if roofline is None else float(roofline["rtf"])

    def scores(self, number: int) -> Evaluated:
        """Of a round that it was heard in."""
        found = self.heard[number].results.evaluate
        assert found is not None  # of every job of a round
        return found

    @property
    def clips(self) -> float:
        """Clips that its largest test set holds; infinitely many as long as that is not known."""
        if not self.heard:
            return math.inf
        record = next(iter(self.heard.values()))
        found = [each.results.evaluate for each in record.members or [record]]
        return max(int(each.data["drawn"]["of"]) for each in found if each is not None)

    def behind(self, other: Candidate, number: int, output_dir: Path) -> tuple[str, bool]:
        """How far its error rate is above the other's in a round, with the interval, and whether significantly."""
        from src.reporting.compared import mean_difference  # Hydra imports this in every process, and these torch
        from src.reporting.stored import find_sets

        paired = mean_difference(*(find_sets(each.heard[number], output_dir) for each in (self, other)))
        told = f"{paired['difference']:+.2f} ({paired['low']:+.2f} to {paired['high']:+.2f})"
        return told, bool(paired["significant"] and paired["difference"] > 0)

    def refuse(self) -> None:
        """Takes a mistake in the settings of its last job, as a budget too small for its model, for what it is."""
        error = None if self.failure is None else returned_or_raised(self.failure)
        if isinstance(error, UserError):
            self.out, self.failure, self.refusal = f"refused: {error}", None, error


def last_common_round(one: Candidate, other: Candidate) -> int | None:
    """Number of the last round that both were heard in."""
    return max(one.heard.keys() & other.heard.keys(), default=None)
