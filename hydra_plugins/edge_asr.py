"""The sweepers and the launchers by the names that Hydra looks up: it takes plugins from this namespace alone."""

from __future__ import annotations

from src.launching import parallel, slurm
from src.sweepers import combinations, fit, search


class GridSweeper(combinations.GridSweeper):
    """See :mod:`src.sweepers.combinations`."""


class SearchSweeper(search.SearchSweeper):
    """See :mod:`src.sweepers.search`."""


class FitSweeper(fit.FitSweeper):
    """See :mod:`src.sweepers.fit`."""


class SlurmArrayLauncher(slurm.SlurmArrayLauncher):
    """See :mod:`src.launching.slurm`."""


class LocalPoolLauncher(parallel.LocalPoolLauncher):
    """See :mod:`src.launching.parallel`."""
