"""One block during the walk: what it is fed, what it should give, and what its links were seen to carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from src.methods.base import LinkStatistics
from src.models.graph import Block


@dataclass
class BlockInput:
    """One calibration batch at the door of a block.

    Attributes:
        hidden: input of the block, ``[batch, rows, d]``.
        kwargs: what else the block takes: masks, position embeddings, encoder states.
        valid: bool ``[batch, rows]``, False where a row is padding.
    """

    hidden: Tensor
    kwargs: dict[str, Any]
    valid: Tensor


@dataclass
class BlockTask:
    """One block to be quantized.

    Attributes:
        block: its linears.
        module: the block itself; ``module(hidden, **kwargs)`` gives ``[batch, rows, d]``.
        inputs: what it is fed, from quantized predecessors unless ``calib.propagate=fp``.
        targets: outputs of the full-precision block on full-precision inputs, ``[batch, rows, d]`` a batch; empty
            unless the method fits blocks.
        statistics: by link name.
    """

    block: Block
    module: nn.Module
    inputs: list[BlockInput]
    targets: list[Tensor] = field(default_factory=list)
    statistics: dict[str, LinkStatistics] = field(default_factory=dict)

    def outputs(self, inputs: list[BlockInput] | None = None) -> list[Tensor]:
        """The block's output for every batch, ``[batch, rows, d]``."""
        return [self.module(each.hidden, **each.kwargs) for each in (self.inputs if inputs is None else inputs)]
