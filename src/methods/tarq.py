"""TARQ: rare words count as much as common ones in what the weights are rounded by.

Wang et al., *TARQ: Tail-Aware Reconstruction Quantization for Rare-Word Robust Automatic Speech Recognition* (arXiv
2605.27808). Calibration speech holds few rare words, hence they hardly move ``H = X X^T``. rareBAL takes ``H_common +
lambda H_rare`` with ``lambda = tr(H_common) / tr(H_rare)``, one factor a linear input, so that both weigh the same. The
paper's second part, a correction of what rounded predecessors did, in the same metric, is the rounder's: the
cross-Gram matrix that ``gptaq`` reads is balanced alike.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.calib.task import BlockTask
from src.errors import UserError
from src.methods.base import Method, Needs
from src.methods.parts.delegating import Delegating
from src.methods.parts.rare_tokens import rare_tokens
from src.methods.workbench import Workbench


@dataclass(frozen=True)
class TARQ(Delegating):
    """Balances Gram matrices, and leaves the rounding to ``rounder``.

    Only rows of the decoder are told apart: a row is rare if the token that it writes is a piece of a rare word. Frames
    belong to no word, so linears of the encoder, and k and v of the cross-attention, see theirs unbalanced.

    Attributes:
        rounder: a method that reads the Gram matrix and does not transform the model.
    """

    rounder: Method

    @model_validator(mode="after")
    def _rounder_reads_grams(self) -> Self:
        if self.rounder.needs.transforms or "gram" not in self.rounder.needs.statistics:
            problem = f"{self.rounder.name} does not only round weights by a Gram matrix"
            raise UserError("method.rounder", problem, "Use method@method.rounder=gptaq or gptq")
        return self

    @property
    def inner(self) -> Method:
        return self.rounder

    @property
    def needs(self) -> Needs:
        """Which rows are rare follows from the clips' transcripts, whatever ``calib.propagate`` says."""
        return super().needs | Needs(clips=True, token_weights=True, decoder=True)

    def rare_rows(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        """Of a decoder block, the rows that write a piece of a rare word; see :meth:`Method.rare_rows`."""
        if bench.calibration is None or task.block not in bench.graph.decoder:
            return None
        found = []
        for (_, tokens), batch in zip(bench.calibration.batches(), task.inputs, strict=True):
            rare = torch.zeros_like(batch.valid)
            for clip, ids in enumerate(tokens):
                written = rare_tokens(bench.speech, ids)[1:]
                rare[clip, : len(written)] = torch.tensor(written, device=rare.device)
            found.append(rare)
        return found
