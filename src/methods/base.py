"""What a quantization method is, what it is told and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from torch import Tensor

from src.quant.extras import Extra
from src.quant.granularity import QuantizedWeight, WeightSpec
from src.quant.grid import round_to_nearest
from src.quant.link_statistics import LinkStatistics

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Rounded:
    """A quantized weight, and in words every fallback that was taken to get it."""

    weight: QuantizedWeight
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Transformed:
    """What a transform of the whole model did.

    Attributes:
        acted: number of links (or other places) that were changed.
        notes: by linear path, in words, why the transform could not act on this linear's input.
        scales: by link name, what the channels of this link's input were divided by, [in].
    """

    acted: int
    notes: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """Base of all methods: round-to-nearest on min-max grids, from no statistics.

    A method is a frozen dataclass whose fields are the parameters of its yaml in ``conf/method``, which also holds
    their defaults; ``__post_init__`` checks them. It overrides the hooks it needs. They are called in this order:
    :meth:`transform` and :meth:`plan` once; then, block by block, :meth:`token_weights` and :meth:`fit_block`; then
    :meth:`round` for every linear that ``fit_block`` did not round. The properties say what has to be collected.
    """

    name: str

    @property
    def quantizes(self) -> bool:
        """Whether the method changes the model at all."""
        return True

    @property
    def statistics(self) -> frozenset[str]:
        """Fields of :class:`LinkStatistics` that :meth:`round` reads, e.g. ``{"gram"}``."""
        return frozenset()

    @property
    def propagates(self) -> bool:
        """Whether blocks see inputs from quantized predecessors where ``calib.propagate`` asks for it."""
        return True

    @property
    def uses_calibration(self) -> bool:
        """Whether any hook reads calibration data; without it, no clip goes through the model."""
        return bool(self.statistics) or self.fits_blocks

    @property
    def transforms(self) -> bool:
        """Whether :meth:`transform` changes the model."""
        return False

    @property
    def draws(self) -> bool:
        """Whether what it does depends on :attr:`Workbench.seed`; a transform may draw rotations."""
        return self.transforms

    @property
    def only_scales(self) -> bool:
        """Whether :meth:`transform` changes inputs of linears by :attr:`Transformed.scales` alone, if at all."""
        return not self.transforms

    @property
    def fits_blocks(self) -> bool:
        """Whether :meth:`fit_block` does anything."""
        return False

    @property
    def runs_blocks(self) -> bool:
        """Whether :meth:`fit_block` reads more of its task than the statistics: a block's inputs or outputs."""
        return self.fits_blocks

    @property
    def uses_targets(self) -> bool:
        """Whether it also reads the full-precision outputs of every block, which cost a second pass."""
        return self.fits_blocks

    @property
    def simulates_inputs(self) -> bool:
        """Whether it, or a method it is composed of, rounds inputs while it learns: per token, asymmetrically."""
        parts = (getattr(self, each.name) for each in fields(self))
        return any(part.simulates_inputs for part in parts if isinstance(part, Method))

    @property
    def stores(self) -> frozenset[Extra]:
        """What its quantized model, or that of a method it is composed of, may hold beside codes on integer grids."""
        parts = (getattr(self, each.name) for each in fields(self))
        return frozenset(extra for part in parts if isinstance(part, Method) for extra in part.stores)

    @property
    def weighs_tokens(self) -> bool:
        """Whether :meth:`token_weights` does anything."""
        return False

    def transform(self, bench: Workbench) -> Transformed:  # noqa: ARG002 - a hook
        """Changes the whole model in place without changing what it computes: smoothing, shifting, rotation."""
        return Transformed(acted=0)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """Grid of every linear's weight, by path; ``None`` keeps 16 bits. Default: the bit-config, uniformly."""
        return dict(bench.plan)

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:  # noqa: ARG002 - a hook
        """Weight of every row in the statistics, one tensor [batch, rows] per batch; ``None`` counts all alike."""
        return None

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:  # noqa: ARG002 - a hook
        """Learns something about one block; may change its module, and returns the linears it rounded, by path."""
        return {}

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:  # noqa: ARG002 - a hook
        """Quantizes one weight.

        Args:
            W: weight [out, in], float32; not changed.
            spec: the grid to use.
            stats: statistics of the linear's input, with at least the fields in ``statistics``.
        """
        return Rounded(round_to_nearest(W, spec))
