"""Sweepers and launcher by the names that Hydra looks up: it takes plugins from this namespace package alone."""

from __future__ import annotations

from src.launching import slurm
from src.sweepers import grid, search


class GridSweeper(grid.GridSweeper):
    """See :mod:`src.sweepers.grid`."""


class SearchSweeper(search.SearchSweeper):
    """See :mod:`src.sweepers.search`."""


class SlurmArrayLauncher(slurm.SlurmArrayLauncher):
    """See :mod:`src.launching.slurm`."""
