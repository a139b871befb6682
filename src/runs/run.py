"""Runs a point, or those of a composite, unless they are found finished."""

from __future__ import annotations

from collections.abc import Sequence

from src.machine.interrupts import held
from src.metrics import METRICS
from src.records import Record
from src.runs.memo import found_again
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


def objectives(record: Record, names: Sequence[str]) -> float | tuple[float | None, ...] | None:
    """What a sweeper searches by: a number for one name, else a tuple; None for what the chosen stages did not make."""
    figures = [record.results.figure(METRICS[name]) for name in names]
    found = tuple(None if figure is None else float(figure) for figure in figures)
    return found[0] if len(found) == 1 else found
