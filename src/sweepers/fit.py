"""The best point that fits: all candidates are quantized, and those within the bounds race for the lowest error rate.

A race as F-Race runs it (Birattari et al., GECCO 2002): what is left is heard on more and more clips, and what is worse
than the best so far by the paired test is heard no further. Every job is a point like any other, of which a launcher
may run many at a time; what is finished is not run again, so that the same command goes on where it was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from src.errors import UserError
from src.metrics import METRICS, WER
from src.records import Record
from src.storage.store import write_json
from src.sweepers.rounds import RoundsSweeper, record_of
from src.sweepers.space import divided
from src.terminal import console

if TYPE_CHECKING:  # Hydra imports this in every process, and these import torch
    from src.scoring.comparison import Scored

log = logging.getLogger(__name__)

RACE = "race.json"
_MEGABYTE = 10**6
_FEWEST = 3  # points that have an order worth telling
_SIZED = "stages=[calibrate,quantize,profile]"


@dataclass
class Candidate:
    """A point in the race.

    Attributes:
        overrides: what makes it.
        records: of its rounds so far, the last of which says most.
        error_rates: WER of every round it was heard in.
        out: why it was heard no further; empty while it is in the race.
    """

    overrides: list[str]
    records: list[Record] = field(default_factory=list)
    error_rates: list[float] = field(default_factory=list)
    out: str = ""

    @property
    def megabytes(self) -> float:
        size = self.records[-1].results.figure(METRICS["disk_bytes"])
        assert size is not None  # of every quantized point
        return size / _MEGABYTE

    @property
    def name(self) -> str:
        return " ".join(self.overrides)


class FitSweeper(RoundsSweeper):
    """``hydra/sweeper=fit``; the arguments are the keys of its yaml, which says what they mean."""

    def __init__(
        self,
        megabytes: Any,
        rtf: Any,
        wer: Any,
        clips: Sequence[int],
        candidates: Sequence[str],
        then: Sequence[str],
        params: Mapping[str, str],
    ) -> None:
        self._megabytes, self._rtf, self._wer = megabytes, rtf, wer
        self._clips, self._candidates, self._then, self._params = clips, candidates, then, params
        self._failed: list[JobReturn] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before :meth:`sweep`. Raises UserError where a key of the yaml is out of range."""
        for key, value in (("megabytes", self._megabytes), ("rtf", self._rtf), ("wer", self._wer)):
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise UserError(f"hydra.sweeper.{key}", f"{value!r} is no bound", "Use a number above 0, or null")
        if any(count < 1 for count in self._clips) or sorted(set(self._clips)) != list(self._clips):
            problem = f"{list(self._clips)} are no rounds"
            raise UserError("hydra.sweeper.clips", problem, "Use rising numbers of clips, e.g. [20,60], or []")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Runs the race, prints how each candidate fared, and makes ``then`` of the one that won.

        Raises:
            UserError: nothing meets the bounds.
            Exception: of the first point that failed, once the others are done.
        """
        field = self._field(arguments)
        self.save_config()
        returned = list(self._race(field))
        chosen = self._chosen(field)
        console.show_race(*self._table(field, chosen))
        write_json(self.folder / RACE, [_told(each, each is chosen) for each in field])
        for failure in self._failed:
            _ = failure.return_value  # raises where the job did
        if chosen is None:
            raise self._nothing(field)
        if self._then:
            returned.append(self.launch([[*chosen.overrides, *self._then]]))
            for result in returned[-1]:
                _ = result.return_value
        return returned

    def _field(self, arguments: Sequence[str]) -> list[Candidate]:
        """All combinations of the candidates with what the command line varies, which has the last word."""
        given = self.parsed([*(f"{key}={value}" for key, value in self._params.items()), *arguments])
        fixed, space = divided(given, may_be_one=True)
        if space.intervals:
            key = next(iter(space.intervals))
            raise UserError(key, "an interval has no end of candidates", f"Name values: {key}=0.1,0.2")
        budget = "null" if self._megabytes is None else str(self._megabytes)
        own = [each.replace("{megabytes}", budget).split() for each in self._candidates] or [[]]
        varied = [zip(space.choices, values, strict=True) for values in product(*space.choices.values())]
        more = [[f"{key}={value}" for key, value in each] for each in varied]
        self._fixed = fixed
        field = [Candidate([*each, *others]) for others, each in product(more, own)]
        self.validate_batch_is_legal([self._job(each) for each in field])
        return field

    def _job(self, candidate: Candidate, *more: str) -> list[str]:
        return [*self._fixed, *candidate.overrides, *more]

    def _race(self, field: Sequence[Candidate]) -> Iterator[Sequence[JobReturn]]:
        yield self._round(field, _SIZED)
        for each in _left(field):
            each.out = self._too_much(each)
        for clips in self._clips:
            if len(_left(field)) > 1:
                yield self._round(_left(field), "stages=[evaluate]", f"dataset.limit={clips}")
                self._compare(_left(field), f"{clips} clips")
        if _left(field):
            yield self._round(_left(field))
            self._compare(_left(field), "all clips")

    def _round(self, field: Sequence[Candidate], *more: str) -> Sequence[JobReturn]:
        results = self.launch([self._job(each, *more) for each in field])
        for each, result in zip(field, results, strict=True):
            if result.status is JobStatus.COMPLETED:
                each.records.append(record_of(result))
                if (rate := each.records[-1].results.figure(WER)) is not None:
                    each.error_rates.append(rate)
            else:
                each.out = "failed"
                self._failed.append(result)
        return results

    def _too_much(self, candidate: Candidate) -> str:
        """Which bound it does not meet; empty if it meets all that can be told before anything is heard."""
        if self._megabytes is not None and candidate.megabytes > self._megabytes:
            return "too large"
        if self._rtf is not None and (slowness := _rtf(candidate)) > self._rtf:
            return f"too slow: a real-time factor of {slowness:.3g}"
        return ""

    def _compare(self, field: Sequence[Candidate], heard: str) -> None:
        """Drops what is worse than it may be."""
        if not field:
            return
        if self._wer is not None:
            for each in field:
                scores = each.records[-1].results.evaluate
                assert scores is not None
                if scores.wer_low > self._wer:
                    each.out = f"above {self._wer:g} % on {heard}"
            return
        best = min(field, key=lambda each: each.error_rates[-1])
        for each in field:
            if each is not best and (told := self._worse(each, best)):
                each.out = f"{told} on {heard}"

    def _worse(self, candidate: Candidate, best: Candidate) -> str:
        """By how much, if significantly."""
        from src.scoring.mean import mean_scores

        own, other = (self._scored(each.records[-1]) for each in (candidate, best))
        settings = candidate.records[-1].settings
        paired = mean_scores(
            [each.scores for each in own],
            [each.scores for each in other],
            [each.blocks.labels for each in own],
            settings["evaluate"]["bootstrap_samples"],
            settings["seed"],
        )["versus_fp"]
        worse = paired["significant"] and paired["difference"] > 0
        return f"{paired['difference']:+.2f} ({paired['low']:+.2f} to {paired['high']:+.2f})" if worse else ""

    def _scored(self, record: Record) -> list[Scored]:
        """Its transcripts, one entry a test set."""
        from src.reporting.stored import find
        from src.scoring.comparison import scored
        from src.stages.decoding import TRANSCRIPTS
        from src.text.normalizers import Rules

        names = [each.fingerprint for each in record.members] or [record.fingerprint]
        stored = [find(name, Path(self._config.output_dir)) for name in names]
        return [scored(each.folder / TRANSCRIPTS, Rules.named(each.record.versions.normalizer)) for each in stored]

    def _chosen(self, field: Sequence[Candidate]) -> Candidate | None:
        """The lowest error rate, or with a bound on that the smallest file, of those that were heard to the end."""
        finished = _left(field)
        if self._wer is None:
            return min(finished, key=lambda each: (each.error_rates[-1], each.megabytes), default=None)
        enough = [each for each in finished if each.error_rates[-1] <= self._wer]
        return min(enough, key=lambda each: (each.megabytes, each.error_rates[-1]), default=None)

    def _nothing(self, field: Sequence[Candidate]) -> UserError:
        sized = [each for each in field if each.records]
        smallest = min(sized, key=lambda each: each.megabytes)
        if self._megabytes is not None and smallest.megabytes > self._megabytes:
            taken = f"{smallest.name} takes {smallest.megabytes:.2f}"
            problem = f"no candidate takes {self._megabytes:g} MB or less; {taken}"
            return UserError("hydra.sweeper.megabytes", problem, "Allow more, or add candidates of fewer bits")
        return UserError("hydra.sweeper", "no candidate meets all bounds", "Widen them, or add candidates")

    def _table(self, field: Sequence[Candidate], chosen: Candidate | None) -> tuple[list[str], list[list[str]], str]:
        """Header, rows and what stands below: those that came furthest first."""
        rounds = [f"WER, {clips}" for clips in self._clips] + ["WER, all"]
        ordered = sorted(field, key=lambda each: (each is not chosen, -len(each.error_rates), each.error_rates[-1:]))
        unchosen = "not significantly worse" if self._wer is None else "larger, or above the bound"
        rows = []
        for each in ordered:
            heard, silent = [f"{rate:.2f}" for rate in each.error_rates], ["-"] * (len(rounds) - len(each.error_rates))
            cells = [*heard, *silent] if each.out else [*silent, *heard]  # one alone in the race skips rounds
            size = f"{each.megabytes:.2f}" if each.records else "-"
            rows.append([each.name, size, *cells, "chosen" if each is chosen else each.out or unchosen])
        below = "Differences are to the best of the round, with 95 % intervals."
        return ["candidate", "MB", *rounds, ""], rows, f"{below}{self._agreement(field)}"

    def _agreement(self, field: Sequence[Candidate]) -> str:
        """How well the order after each round told that of the last, where three or more were heard to the end."""
        from scipy.stats import spearmanr

        heard = [each.error_rates for each in field if len(each.error_rates) > len(self._clips)]
        if len(heard) < _FEWEST:
            return ""
        last = [rates[-1] for rates in heard]
        found = [
            f"{spearmanr([rates[number] for rates in heard], last).statistic:.2f} after {clips} clips"
            for number, clips in enumerate(self._clips)
        ]
        return f" Spearman's rank correlation with the last round: {', '.join(found)}." if found else ""


def _left(field: Sequence[Candidate]) -> list[Candidate]:
    return [each for each in field if not each.out]


def _rtf(candidate: Candidate) -> float:
    """Seconds of computing a second of audio, at best, on the edge device."""
    roofline: Mapping[str, Any] | None = candidate.records[-1].plain["results"]["profile"]["roofline"]
    if roofline is None:
        raise UserError("hydra.sweeper.rtf", "there is no edge device to tell times of", "Choose one: edge_device=NAME")
    return float(roofline["rtf"])


def _told(candidate: Candidate, chosen: bool) -> dict[str, Any]:
    return {
        "overrides": candidate.overrides,
        "megabytes": candidate.megabytes if candidate.records else None,
        "wer": candidate.error_rates,
        "records": [each.fingerprint for each in candidate.records],
        "outcome": "chosen" if chosen else candidate.out,
    }
