"""Runs a point, or those of a composite, unless they are found finished."""

from __future__ import annotations

from src.machine.interrupts import held
from src.runs.memo import found_again
from src.runs.objectives import objectives
from src.settings import Settings
from src.settings.composite import Composite, members


def run(study: Settings | Composite) -> float | tuple[float | None, ...] | None:
    """The objectives of a study that is made, or found finished.

    Raises:
        UserError: a mistake in the settings, found before anything heavy where possible.
    """
    record = found_again(study)
    if record is None:
        with held():  # the imports of a whole run, which a finished one does without
            from src.runs.pipeline import run as run_study

        record = run_study(study)
    return objectives(record, members(study)[0].sweep.objectives)
