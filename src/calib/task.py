"""One block during the walk: what it is fed, what it should give, and what its links were seen to carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from src.methods.base import LinkStatistics
from src.models.graph import Block
from src.models.products import FastLinears


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

    def through(self, module: nn.Module) -> Tensor:
        """What the block ``module`` makes of it, [batch, rows, d]; without gradients."""
        with torch.no_grad(), FastLinears():
            output: Tensor = module(self.hidden, **self.kwargs)
        return output


@dataclass
class BlockTask:
    """One block to be quantized.

    Attributes:
        block: its linears.
        module: the block itself; ``module(hidden, **kwargs)`` gives ``[batch, rows, d]``.
        inputs: what it is fed, from quantized predecessors unless ``calib.propagate=fp``; empty where nothing runs
            blocks.
        targets: outputs of the full-precision block on full-precision inputs, ``[batch, rows, d]`` a batch; empty
            unless the method fits blocks.
        statistics: by link name.
    """

    block: Block
    module: nn.Module
    inputs: list[BlockInput]
    targets: list[Tensor] = field(default_factory=list)
    statistics: Mapping[str, LinkStatistics] = field(default_factory=dict)

    def outputs(self, inputs: list[BlockInput] | None = None) -> list[Tensor]:
        """The block's output for every batch, ``[batch, rows, d]``."""
        return [each.through(self.module) for each in (self.inputs if inputs is None else inputs)]
