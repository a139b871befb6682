"""What a quantization method is, what it is told and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar

import pydantic
from torch import Tensor, nn

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.quant.extras import Extra
from src.quant.grid import round_to_nearest
from src.quant.link_statistics import LinkStatistics

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.tuning import Tuning
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
class Needs:
    """What a method has to be given, and what its quantized model may hold. ``a | b`` is what both together need.

    Attributes:
        statistics: fields of :class:`LinkStatistics` that :meth:`Method.round` reads, e.g. ``{"gram"}``.
        clips: a hook reads calibration clips otherwise than by statistics or block by block.
        transforms: :meth:`Method.transform` changes the model, or :meth:`fit_block` what its linears read.
        rewrites: it changes inputs of linears otherwise than by :attr:`Transformed.scales`.
        seed: another hook draws numbers, from :attr:`Workbench.seed`; a transform may always.
        fits_blocks: :meth:`Method.fit_block` does something.
        rescales: it may move scales between the block's layers.
        block_inputs: it reads what a block is fed, not only the statistics.
        block_outputs: it reads what every block returned at full precision, too, which costs a second pass.
        token_weights: :meth:`Method.output_weights`, :meth:`Method.token_weights` or :meth:`Method.rare_rows` does
            something.
        propagation: blocks may see inputs from quantized predecessors, where ``calib.propagate`` asks for it.
        sequential: the links of a block are measured one after the other, each on inputs from what was rounded before
            it, unless ``calib.sequential`` says otherwise.
        tunes: :meth:`Method.tune` does something.
        reference: it reads :attr:`Workbench.reference`.
        simulates_inputs: it rounds inputs while it learns: per token, asymmetrically.
        decoder: it reads what a decoder writes, or the loss of that.
        rotates_streams: it rotates the residual streams.
        stores: what its quantized model may hold beside codes on integer grids.
    """

    statistics: frozenset[str] = frozenset()
    clips: bool = False
    transforms: bool = False
    rewrites: bool = False
    seed: bool = False
    fits_blocks: bool = False
    rescales: bool = False
    block_inputs: bool = False
    block_outputs: bool = False
    token_weights: bool = False
    propagation: bool = True
    sequential: bool = False
    tunes: bool = False
    reference: bool = False
    simulates_inputs: bool = False
    decoder: bool = False
    rotates_streams: bool = False
    stores: frozenset[Extra] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(self)))

    @property
    def calibration(self) -> bool:
        """Whether any hook reads calibration data; without it, no clip goes through the model."""
        return bool(self.statistics) or self.clips or self.fits_blocks

    @property
    def draws(self) -> bool:
        """Whether the result depends on :attr:`Workbench.seed`."""
        return self.seed or self.transforms


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class Method:
    """Base of all methods: round-to-nearest on min-max grids, from no statistics.

    A method is a frozen dataclass of pydantic's, whose fields are the parameters of its yaml in ``conf/method``, which
    also holds their defaults; their types, as in :mod:`src.methods.parameters`, say what they can be. It overrides the
    hooks it needs. They are called in this order: :meth:`transform`, :meth:`plan` and :meth:`output_weights` once, the
    last also where a run that was killed goes on; then, block by block, :meth:`token_weights`, :meth:`rare_rows` and
    :meth:`fit_block`; then :meth:`round` for every linear that ``fit_block`` did not round; at last :meth:`tune`.
    ``needs`` says what has to be collected for them.
    """

    quantizes: ClassVar[bool] = True  # whether it changes the model at all
    name: str

    @property
    def needs(self) -> Needs:
        """What the hooks read and leave behind; of a method made of others, ``other.needs | Needs(...)``."""
        return Needs()

    def check(self, module: nn.Module, specs: Mapping[str, WeightSpec]) -> None:
        """Finds, before anything heavy, what shapes alone tell would make a hook fail.

        Args:
            module: without weights, on torch's meta device.
            specs: grids of all weights to round, those of the ends too.

        Raises:
            UserError: something would.
        """

    def transform(self, bench: Workbench) -> Transformed:  # noqa: ARG002 - a hook
        """Changes the whole model in place without changing what it computes: smoothing, shifting, rotation."""
        return Transformed(acted=0)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """Grid of every linear's weight, by path; ``None`` keeps 16 bits. Default: the bit-config, uniformly.

        May name those of ``bench.ends`` too, with other grids for them.
        """
        return dict(bench.plan)

    def output_weights(self, bench: Workbench) -> Mapping[str, Sequence[Tensor]]:  # noqa: ARG002 - a hook
        """What rows count for single outputs, in Gram matrices that are collected beside the link's own.

        By linear path, a tensor [groups, rows] for every calibration clip, without padding: each of so many groups of
        the linear's output channels has a matrix of its own. See :meth:`LinkStatistics.groups`.
        """
        return {}

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:  # noqa: ARG002 - a hook
        """Weight of every row in the statistics, one tensor [batch, rows] per batch; ``None`` counts all alike."""
        return None

    def rare_rows(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:  # noqa: ARG002 - a hook
        """Rows that count as much together as all others in each Gram matrix, bool [batch, rows] per batch; or None."""
        return None

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:  # noqa: ARG002 - a hook
        """Learns something about one block; may change its module, and returns the linears it rounded, by path."""
        return {}

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:  # noqa: ARG002 - a hook
        """Quantizes one weight.

        Args:
            W: weight [out, in], float32; not changed.
            spec: the grid to use.
            stats: statistics of the linear's input, with at least the fields in ``needs.statistics``; where there are
                any, they say which linear it is.
        """
        return Rounded(round_to_nearest(W, spec))

    def tune(self, bench: Workbench, tuning: Tuning) -> Mapping[str, QuantizedWeight]:  # noqa: ARG002 - a hook
        """Learns about the whole rounded model, of which it may change what stays at 16 bits; returns what it holds.

        Leaves in ``bench.module`` what the returned weights, by path, stand for.
        """
        return tuning.weights
