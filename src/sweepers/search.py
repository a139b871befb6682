"""A search by Optuna: it proposes points in batches, each launched as one sweep, until enough have been tried.

Several objectives make a Pareto front. The study is a journal below ``output_dir``, so that the same command goes on
where an interrupted one stopped, and a larger ``n_trials`` goes further.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from src.errors import UserError, did_you_mean
from src.records import read_record
from src.runs.memo import list_finished
from src.storage.store import fingerprint
from src.sweepers.rounds import RoundsSweeper, record_of
from src.sweepers.space import Space, divided
from src.sweepers.study import SAMPLERS, Figures, alone, known, open_study, point_of, tell_failure
from src.terminal import console

if TYPE_CHECKING:
    from optuna import Study, Trial

log = logging.getLogger(__name__)

PATIENCE = 100  # proposals in a row that bring nothing new: the search has converged
LARGE = 1000  # figures beyond are shown without decimals


class SearchSweeper(RoundsSweeper):
    """``hydra/sweeper=optuna``; the arguments are the keys of its yaml, which says what they mean."""

    def __init__(
        self,
        n_trials: int,
        batch: int,
        sampler: str,
        seed: int,
        folder: str,
        params: Mapping[str, str],
    ) -> None:
        self._n_trials, self._batch, self._sampler, self._seed = n_trials, batch, sampler, seed
        self._folder, self._params = Path(folder), params
        self._failed: dict[str, JobReturn] = {}  # of this process: a later one may have more luck

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before :meth:`sweep`. Raises UserError where a key of the yaml is out of range."""
        for key, value in (("n_trials", self._n_trials), ("batch", self._batch)):
            if value < 1:
                raise UserError(f"hydra.sweeper.{key}", f"{value} is not a number of points", "Use 1 or more")
        if self._sampler not in SAMPLERS:
            remedy = did_you_mean(self._sampler, SAMPLERS)
            raise UserError("hydra.sweeper.sampler", f"there is no {self._sampler!r}", remedy)
        self._objectives = [str(name) for name in config.sweep.objectives]
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Runs the search and prints its best points.

        Raises:
            UserError: nothing to search, Optuna is not installed, or another process runs the same search.
            Exception: of the first point that failed, once the others are done.
        """
        fixed, space = divided(self.parsed([*(f"{key}={value}" for key, value in self._params.items()), *arguments]))
        self.save_config()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._name(space)
        journal = self._folder / f"{name}.journal"
        with alone(journal):
            study = open_study(journal, self._objectives, self._sampler, self._seed, self._batch)
            log.info("search %s: %d points are known of %d", name, len(known(study)), self._n_trials)
            self._list_known(study)
            returned = list(self._rounds(study, fixed, space))
            console.show_front(*self._front(study))
        for failure in self._failed.values():
            _ = failure.return_value  # raises where the job did
            problem = f"a point came to an end without {' and '.join(self._objectives)}"
            raise UserError("sweep.objectives", problem, "Add the stages that make them to stages")
        return returned

    def _rounds(self, study: Study, fixed: list[str], space: Space) -> Iterator[Sequence[JobReturn]]:
        while proposed := self._proposals(study, space):
            batch = [[*fixed, *space.overrides(trials[0].params)] for trials in proposed.values()]
            results = self.launch(batch)
            for (point, trials), result in zip(proposed.items(), results, strict=True):
                self._tell(study, point, trials, result)
            yield results
            if all(point in self._failed for point in proposed):
                log.error("no point of this batch came to an end; the search stops here")
                return

    def _proposals(self, study: Study, space: Space) -> dict[str, list[Trial]]:
        """New points, each with the trials that proposed it; what is known or failed before is told at once."""
        done, proposed, repeats = known(study), dict[str, list["Trial"]](), 0
        wanted = min(self._batch, self._n_trials - len(done) - len(self._failed))
        while len(proposed) < wanted and repeats < PATIENCE and len(done) + len(proposed) < space.size:
            trial = study.ask()
            point = point_of(space.suggest(trial))
            repeats = repeats + 1 if point in done or point in self._failed or point in proposed else 0
            if point in done:
                study.tell(trial, done[point])
            elif point in self._failed:
                tell_failure(study, trial)
            else:
                proposed.setdefault(point, []).append(trial)
        return proposed

    def _tell(self, study: Study, point: str, trials: Sequence[Trial], result: JobReturn) -> None:
        figures = _figures(result)
        if figures is None:
            self._failed[point] = result
        for trial in trials:
            if figures is None:
                tell_failure(study, trial)
            else:
                trial.set_user_attr("record", record_of(result).fingerprint)
                study.tell(trial, figures)

    def _name(self, space: Space) -> str:
        """Names a search by all that its points have in common and by where they differ."""
        return fingerprint({"common": self.common, "space": space.described, "objectives": self._objectives})

    def _list_known(self, study: Study) -> None:
        """Puts what was found before into the table of the sweep."""
        for trial in study.get_trials(deepcopy=False):
            record = Path(self._config.output_dir) / "records" / f"{trial.user_attrs.get('record')}.json"
            with suppress(ValueError):  # none is stored, or what is cannot be shown
                list_finished(self.folder, trial.number, read_record(record))

    def _front(self, study: Study) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the points that no other point is better than in every objective."""
        newest_first = sorted(study.best_trials, key=lambda trial: -trial.number)
        best = {point_of(trial.params): trial for trial in newest_first}  # the oldest of equal ones ran
        trials = sorted(best.values(), key=lambda trial: trial.values)
        swept = sorted({name for trial in trials for name in trial.params})
        rows = [
            [
                *(str(trial.params.get(name, "-")) for name in swept),
                *(f"{value:.2f}" if value < LARGE else f"{value:.0f}" for value in trial.values),
                str(trial.user_attrs.get("record", "-")),
            ]
            for trial in trials
        ]
        return [*swept, *self._objectives, "record"], rows


def _figures(result: JobReturn) -> Figures | None:
    """What a job returned; None where it failed or an objective is missing."""
    if result.status is not JobStatus.COMPLETED:
        return None
    returned = result.return_value
    figures = tuple(returned) if isinstance(returned, tuple) else (returned,)
    return None if None in figures else figures
