"""The sweepers and the launchers by the names that Hydra looks up: it takes plugins from this namespace alone."""

from __future__ import annotations

from src.launching import local, slurm
from src.sweepers import grid, search


class GridSweeper(grid.GridSweeper):
    """See :mod:`src.sweepers.grid`."""


class SearchSweeper(search.SearchSweeper):
    """See :mod:`src.sweepers.search`."""


class SlurmArrayLauncher(slurm.SlurmArrayLauncher):
    """See :mod:`src.launching.slurm`."""


class LocalPoolLauncher(local.LocalPoolLauncher):
    """See :mod:`src.launching.local`."""
