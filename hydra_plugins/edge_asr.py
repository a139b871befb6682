"""The sweepers by the names that Hydra looks up: it takes plugins from this namespace package and from nowhere else."""

from __future__ import annotations

from src.sweepers import grid, search


class GridSweeper(grid.GridSweeper):
    """See :mod:`src.sweepers.grid`."""


class SearchSweeper(search.SearchSweeper):
    """See :mod:`src.sweepers.search`."""
