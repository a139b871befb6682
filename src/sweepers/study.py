"""Optuna's study of a search: a journal on disk, its sampler, and what it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from src.errors import UserError
from src.metrics import METRICS
from src.storage.journal import Journal
from src.storage.locks import Lock

if TYPE_CHECKING:
    from optuna import Study, Trial

SAMPLERS = ("tpe", "nsga2", "random")
Figures = tuple[float, ...]  # the objectives of a point


def alone(journal: Path) -> AbstractContextManager[Any]:
    """A lock on the study, so that no trial of a running search is taken for an interrupted one.

    Raises:
        UserError: another process holds it.
    """
    try:
        return Lock(journal.with_suffix(".lock")).acquire(timeout=0)
    except Timeout:
        problem = "another process runs the same search"
        raise UserError("hydra/sweeper", problem, "Wait for it, or choose another output_dir") from None


def open_study(journal: Path, objectives: Sequence[str], sampler: str, seed: int, batch: int) -> Study:
    """The study of these objectives, new or as it was left; interrupted trials are proposed again first.

    Its file is a :class:`~src.storage.journal.Journal`: of a damaged one, only what came before the damage is taken up.

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = _optuna()
    from optuna.storages import JournalStorage
    from optuna.trial import TrialState

    from src.sweepers.log import CheckedLog

    storage = JournalStorage(CheckedLog(Journal(journal, {"objectives": len(objectives)})))
    directions = ["minimize" if METRICS[name].lower_is_better else "maximize" for name in objectives]
    study: Study = optuna.create_study(
        storage=storage, study_name=journal.stem, directions=directions, load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    study.sampler = _sampler(sampler, seed + len(study.get_trials(deepcopy=False)), batch)
    return study


def known(study: Study) -> dict[str, Figures]:
    """The figures of every point that is finished."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {point_of(trial.params): tuple(trial.values) for trial in trials}


def point_of(params: Mapping[str, Any]) -> str:
    """One text for one point."""
    return json.dumps(dict(params), sort_keys=True)


def tell_failure(study: Study, trial: Trial) -> None:
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState.FAIL)


def _sampler(name: str, seed: int, batch: int) -> Any:
    """The seed grows with the trials: else a search that goes on would propose what it began with."""
    samplers = _optuna().samplers
    if name == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=2 * batch, constant_liar=True)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(2, batch))
    return samplers.RandomSampler(seed=seed)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        remedy = "Run pip install -e '.[search]'"
        raise UserError("hydra/sweeper", "'optuna' needs a package that is not installed", remedy) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
