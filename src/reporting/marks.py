"""Colours and shapes of series: the same series looks the same in every plot and on the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from src.reporting.panels import rank

# Okabe and Ito's colours, which the colour-blind tell apart; their yellow is left out, as nobody sees it on white.
COLOURS: Final = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">")  # in matplotlib's letters
UNSEEN: Final = "#8a8a8a"  # what is there for orientation


@dataclass(frozen=True)
class Mark:
    """How a series is drawn: positions in :data:`COLOURS` and :data:`SHAPES`."""

    colour: int
    shape: int


def marks(names: Iterable[str]) -> dict[str, Mark]:
    """A mark for every name, in the order of :func:`~src.reporting.panels.rank`; the first 63 are unlike each other."""
    ordered = sorted(set(names), key=rank)
    return {name: Mark(number % len(COLOURS), number % len(SHAPES)) for number, name in enumerate(ordered)}


def front(costs: Iterable[float], errors: Iterable[float]) -> list[int]:
    """Positions of the Pareto-optimal points, by rising cost: no other costs as little and errs as little.

    Points with an unknown cost (NaN) are never on it.
    """
    points = [(cost, error, number) for number, (cost, error) in enumerate(zip(costs, errors, strict=True))]
    found: list[int] = []
    lowest = float("inf")
    for _, error, number in sorted(point for point in points if point[0] == point[0]):
        if error < lowest:
            lowest = error
            found.append(number)
    return found
