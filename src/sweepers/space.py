"""What a search may vary: the swept values of a command line, as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override

from src.errors import UserError

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class Space:
    """Choices by key, as they are written on the command line, and intervals of numbers by key."""

    choices: Mapping[str, Sequence[str]]
    intervals: Mapping[str, IntervalSweep]

    @property
    def size(self) -> float:
        """How many points there are."""
        return math.inf if self.intervals else math.prod(map(len, self.choices.values()))

    @property
    def described(self) -> dict[str, Any]:
        bounds = {key: [each.start, each.end, sorted(each.tags)] for key, each in self.intervals.items()}
        return {**{key: list(values) for key, values in self.choices.items()}, **bounds}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        for key, values in self.choices.items():
            trial.suggest_categorical(key, list(values))
        for key, interval in self.intervals.items():
            low, high = (float(str(end)) for end in (interval.start, interval.end))
            trial.suggest_float(key, low, high, log="log" in interval.tags)
        return dict(trial.params)

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        return [f"{key}={value}" for key, value in point.items()]


def divided(overrides: Sequence[Override], *, may_be_one: bool = False) -> tuple[list[str], Space]:
    """What stays fixed, as arguments, and what is searched. Of two with one key the later counts.

    Raises:
        UserError: nothing is searched, unless that may be a single point.
    """
    last = {override.get_key_element(): override for override in overrides}
    fixed, choices, intervals = [], {}, {}
    for key, override in last.items():
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif override.is_discrete_sweep():
            choices[key] = list(dict.fromkeys(override.sweep_string_iterator()))
        else:
            value = override.value()
            assert isinstance(value, IntervalSweep)
            intervals[key] = value
    if not (choices or intervals or may_be_one):
        remedy = "Give several values of some keys, e.g. method=rtn,gptq wbits=2,3,4 'method.alpha=interval(0.1,0.9)'"
        raise UserError("hydra/sweeper", "there is nothing to search", remedy)
    if empty := [key for key, values in choices.items() if not values]:
        raise UserError(empty[0], "its pattern matches no choice", "Check glob(...)")
    return fixed, Space(choices, intervals)
