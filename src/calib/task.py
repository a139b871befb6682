"""One block during the walk: what it is fed, what it should give, and what its links were seen to carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from src.models.graph import Block
from src.models.products import FastLinears
from src.quant.forced_cache import ForcedCache
from src.quant.link_statistics import LinkStatistics


@dataclass
class BlockInput:
    """One calibration batch at the door of a block.

    Attributes:
        hidden: input of the block, ``[batch, rows, d]``.
        kwargs: what else the block takes: masks, position embeddings, encoder states.
        valid: bool ``[batch, rows]``, False where a row is padding.
        weights: what rows count in Gram matrices and losses, ``R`` of ``H = X R^2 X^T``, ``[batch, rows]``; None where
            all count alike.
    """

    hidden: Tensor
    kwargs: dict[str, Any]
    valid: Tensor
    weights: Tensor | None = None

    def part(self, chosen: slice) -> BlockInput:
        count = len(self.hidden)

        def pick(value: Any) -> Any:
            """The chosen clips of what has one entry a clip; position embeddings and flags serve all clips."""
            if isinstance(value, ForcedCache):
                return value.clips(chosen)
            if isinstance(value, tuple | list):
                return type(value)(pick(item) for item in value)
            return value[chosen] if isinstance(value, Tensor) and value.dim() and len(value) == count else value

        kwargs = {name: pick(value) for name, value in self.kwargs.items()}
        return BlockInput(self.hidden[chosen], kwargs, self.valid[chosen], pick(self.weights))

    def parts(self) -> list[tuple[slice, BlockInput]]:
        """What goes through a block at once: on a CPU a clip, as the caches hold no more."""
        step = 1 if self.hidden.device.type == "cpu" else len(self.hidden)
        chosen = [slice(start, start + step) for start in range(0, len(self.hidden), step)]
        return [(each, self.part(each)) for each in chosen]

    def through(self, module: nn.Module) -> Tensor:
        """What the block ``module`` makes of it, [batch, rows, d]; without gradients."""
        return torch.cat([part.run(module) for _, part in self.parts()])

    def run(self, module: nn.Module) -> Tensor:
        """Likewise, of all clips at once."""
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
        measure: measures these; for what changed the tensors that links carry.
    """

    block: Block
    module: nn.Module
    inputs: list[BlockInput]
    targets: list[Tensor] = field(default_factory=list)
    statistics: Mapping[str, LinkStatistics] = field(default_factory=dict)
    measure: Callable[[], Mapping[str, LinkStatistics]] = dict

    def outputs(self, inputs: list[BlockInput] | None = None) -> list[Tensor]:
        """The block's output for every batch, ``[batch, rows, d]``."""
        return [each.through(self.module) for each in (self.inputs if inputs is None else inputs)]
