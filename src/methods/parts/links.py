"""Which links an equalisation acts on, and what it says about the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from pydantic import Field

from src.methods.workbench import Workbench
from src.models.graph import Link
from src.settings import FULL_PRECISION

Feeds = Annotated[
    tuple[Literal["norm", "linear", "gated"], ...],
    Field(min_length=1, description="a list of what feeds links", examples=["[norm]"]),
]


def choose_links(bench: Workbench, feeds: Collection[str]) -> tuple[list[Link], dict[str, str]]:
    """Links with something to quantize and a producer of a kind in ``feeds``.

    Returns:
        The links, and by linear path why each other linear in scope is left as it is.
    """
    chosen: list[Link] = []
    notes: dict[str, str] = {}
    for link in in_scope(bench):
        if link.feed.listed_as.value in feeds:
            chosen.append(link)
        elif not link.feed.folds:
            notes |= dict.fromkeys(link.linears, f"not equalised: its input comes out of {link.feed.in_words}")
        else:
            left_out = f"not equalised: method.links leaves out {link.feed.listed_as.value}-fed inputs"
            notes |= dict.fromkeys(link.linears, left_out)
    return chosen, notes


def in_scope(bench: Workbench) -> Iterator[Link]:
    """Links with something to quantize."""
    for link in bench.graph.links:
        if any(bench.plan[path] is not None or bench.abits[path] != FULL_PRECISION for path in link.linears):
            yield link
