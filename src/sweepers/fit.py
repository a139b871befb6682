"""The best point that fits: all candidates are quantized, and those within the bounds race for the lowest error rate.

A race as F-Race runs it (Birattari et al., GECCO 2002): what is left is heard on more and more clips, and what is worse
than the best so far by the paired test is heard no further. Every job is a point like any other, of which a launcher
may run many at a time; what is finished is not run again, so that the same command goes on where it was interrupted.
"""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.records import Record, save_race
from src.runs.sweep import SweepTable
from src.storage.digest import fingerprint
from src.sweepers.candidate import Candidate
from src.sweepers.rounds import PLACES, RoundsSweeper, record_of
from src.sweepers.space import divided
from src.terminal import console

log = logging.getLogger(__name__)

_SIZED = "stages=[calibrate,quantize,profile]"


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
        """Runs the race, makes ``then`` of the one that won, and prints how each candidate fared.

        Raises:
            UserError: nothing meets the bounds.
            Exception: of the first point that failed, once the others are done.
        """
        field = self._field(arguments)
        self.save_config()
        returned = list(self._race(field))
        chosen = self._chosen(field)
        failed, made = [each.failure for each in field if each.failure is not None], None
        if chosen is not None and self._then and not failed:
            (made,) = self.launch([self._job(chosen, *self._then)])
            returned.append([made])
            failed = [made] if made.status is not JobStatus.COMPLETED else []
        self._tell(field, chosen, None if made is None or failed else record_of(made))
        for failure in failed:
            _ = failure.return_value  # raises where the job did
        if chosen is None:
            raise self._nothing(field)
        return returned

    def _tell(self, field: Sequence[Candidate], chosen: Candidate | None, made: Record | None) -> None:
        """Stores the race, shows it, and logs it; ``made`` is the record of what was wanted then."""
        # Hydra imports this file in every process, and the others take longer.
        from src.sweepers.evidence import Asked, race_of
        from src.sweepers.tracked import log_race

        fixed = [each for each in self._fixed if _key(each).partition(".")[0] not in PLACES]
        asked = Asked(self._name(field), self._bounds, list(self._clips), fixed)
        race = race_of(asked, field, chosen, made)
        file = save_race(race, Path(self._config.output_dir))
        finals = [each.heard[len(self._clips)] for each in field if len(self._clips) in each.heard]
        if finals:
            console.show(finals)
        console.show_race(race)
        SweepTable.shown = True
        log.info("race: %s", file)
        if chosen is not None:
            log.info("chosen: python -m src.main %s", shlex.join(self._job(chosen, *self._then)))
        if race.export is not None:
            log.info("export: %s", Path(self._config.output_dir) / race.export)
        log_race(race, self._config, self.folder)

    @property
    def _bounds(self) -> dict[str, float]:
        asked = {"megabytes": self._megabytes, "rtf": self._rtf, "wer": self._wer}
        return {name: float(value) for name, value in asked.items() if value is not None}

    def _name(self, field: Sequence[Candidate]) -> str:
        """Names a race by all that its outcome follows from."""
        candidates = [each.overrides for each in field]
        about = {"bounds": self._bounds, "clips": list(self._clips), "candidates": candidates, "then": list(self._then)}
        return fingerprint({"common": self.common, **about})

    def _field(self, arguments: Sequence[str]) -> list[Candidate]:
        """All combinations of the candidates with what the command line varies, which has the last word."""
        given = self.parsed([*(f"{key}={value}" for key, value in self._params.items()), *arguments])
        fixed, space = divided(given, may_be_one=True)
        if space.intervals:
            key = next(iter(space.intervals))
            raise UserError(key, "an interval has no end of candidates", f"Name values: {key}=0.1,0.2")
        budget = "null" if self._megabytes is None else str(self._megabytes)
        given_keys = {*map(_key, fixed), *space.choices}
        lines = [each.replace("{megabytes}", budget).split() for each in self._candidates] or [[]]
        own = [[override for override in line if _key(override) not in given_keys] for line in lines]
        varied = [zip(space.choices, values, strict=True) for values in product(*space.choices.values())]
        more = [[f"{key}={value}" for key, value in each] for each in varied]
        self._fixed = fixed
        different = dict.fromkeys((*each, *others) for others, each in product(more, own))
        field = [Candidate([*overrides]) for overrides in different]
        self.validate_batch_is_legal([self._job(each) for each in field])
        return field

    def _job(self, candidate: Candidate, *more: str) -> list[str]:
        return [*self._fixed, *candidate.overrides, *more]

    def _race(self, field: Sequence[Candidate]) -> Iterator[Sequence[JobReturn]]:
        yield self._sized(field)
        last = len(self._clips)
        most = OmegaConf.select(self._config, "dataset.limit") or math.inf
        for number, clips in enumerate(self._clips):
            racing = _left(field)
            if len(racing) > 1 and clips < min(most, racing[0].clips):  # else the last round is no longer
                yield self._heard(racing, number, f"dataset.limit={clips}")
                self._compare(_left(field), number, f"{clips} clips")
        if _left(field):
            yield self._heard(_left(field), last)
            self._compare(_left(field), last, "all clips")

    def _sized(self, field: Sequence[Candidate]) -> Sequence[JobReturn]:
        """Makes all, as they are wanted ``then``: what cannot be so is refused, most of it before it is quantized."""
        results = self._launched_for(field, *self._then, _SIZED)
        for each, result in zip(field, results, strict=True):
            each.refuse()
            if not each.out:
                each.sized = record_of(result)
                each.out = self._too_much(each)
        return results

    def _heard(self, field: Sequence[Candidate], number: int, *more: str) -> Sequence[JobReturn]:
        results = self._launched_for(field, "stages=[evaluate]", *more)
        for each, result in zip(field, results, strict=True):
            if each.failure is None:
                each.heard[number] = record_of(result)
        return results

    def _launched_for(self, field: Sequence[Candidate], *more: str) -> Sequence[JobReturn]:
        results = self.launch([self._job(each, *more) for each in field])
        for each, result in zip(field, results, strict=True):
            if result.status is not JobStatus.COMPLETED:
                each.out, each.failure = "failed", result
        return results

    def _too_much(self, candidate: Candidate) -> str:
        """Which bound it does not meet; empty if it meets all that can be told before anything is heard."""
        if self._megabytes is not None and candidate.megabytes > self._megabytes:
            return "too large"
        if self._rtf is not None:
            if candidate.rtf is None:
                remedy = "Choose one: edge_device=NAME"
                raise UserError("hydra.sweeper.rtf", "there is no edge device to tell times of", remedy)
            if candidate.rtf > self._rtf:
                return f"too slow: a real-time factor of {candidate.rtf:.3g}"
        return ""

    def _compare(self, field: Sequence[Candidate], number: int, heard: str) -> None:
        """Drops what is worse than it may be, of those that were heard."""
        if self._wer is not None:
            for each in field:
                scores = each.scores(number)
                above = f"above {self._wer:g} % on {heard}"
                each.out = above if scores.wer_low > self._wer else ""
                each.told = "larger" if scores.wer <= self._wer else f"{above}, not significantly"
            return
        best = min(field, key=lambda each: _order(each, number), default=None)
        for each in field:
            if best is not None and each is not best:
                told, worse = each.behind(best, number, Path(self._config.output_dir))
                each.out = f"{told} on {heard}" if worse else ""
                each.told = f"{told} on {heard}, not significant"

    def _chosen(self, field: Sequence[Candidate]) -> Candidate | None:
        """The lowest error rate, or with a bound on that the smallest file, of those that were heard to the end."""
        last = len(self._clips)
        if self._wer is None:
            return min(_left(field), key=lambda each: _order(each, last), default=None)
        enough = [each for each in _left(field) if each.scores(last).wer <= self._wer]
        return min(enough, key=lambda each: (each.megabytes, each.scores(last).wer), default=None)

    def _nothing(self, field: Sequence[Candidate]) -> UserError:
        refusals = [each.refusal for each in field if each.refusal is not None]
        sized = [each for each in field if each.sized is not None]
        smallest = min(sized, key=lambda each: each.megabytes, default=None)
        if smallest is not None and self._megabytes is not None and smallest.megabytes > self._megabytes:
            taken = f"{smallest.name} takes {smallest.megabytes:.2f}"
            problem = f"no candidate takes {self._megabytes:g} MB or less; {taken}"
            return UserError("hydra.sweeper.megabytes", problem, "Allow more, or add candidates of fewer bits")
        if refusals and not any(each.heard for each in field):
            return refusals[0]
        return UserError("hydra.sweeper", "no candidate meets all bounds", "Widen them, or add candidates")


def _key(override: str) -> str:
    return override.partition("=")[0]


def _left(field: Sequence[Candidate]) -> list[Candidate]:
    return [each for each in field if not each.out]


def _order(candidate: Candidate, number: int) -> tuple[float, float]:
    """The lowest error rate of a round, and the smaller of equal ones."""
    return candidate.scores(number).wer, candidate.megabytes
