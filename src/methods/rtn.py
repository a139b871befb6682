"""Round-to-nearest: every weight goes to the nearest point of its grid; no calibration data is used."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.methods.base import Method, Rounded
from src.quant.grid import Range, round_to_nearest
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class RTN(Method):
    """Round-to-nearest on grids whose ends are the group's extremes (``minmax``) or searched (``mse``)."""

    range: Range

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:  # noqa: ARG002  a hook
        """Nearest codes of ``W``; ``stats`` is not used. See :meth:`Method.round`."""
        return Rounded(round_to_nearest(W, spec, self.range))
