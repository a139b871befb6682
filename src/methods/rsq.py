"""RSQ: rotate, scale tokens by their importance, quantize with GPTQ.

Sung et al., *RSQ: Learning from Important Tokens Leads to Better Quantized LLMs* (arXiv 2503.01820). GPTQ minimises
``||(W - Q) X R||^2``, hence works from ``H = X R^2 X^T``, where ``R`` holds one importance a token: the attention the
token receives in the block's self-attention ("attention concentration", sec. 4.3), the authors' best choice. Rows of
the encoder are frames, rows of the decoder tokens of the transcript; each sees its own self-attention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.calib.task import BlockTask
from src.errors import UserError
from src.methods.base import Needs, Transformed
from src.methods.parameters import Fraction
from src.methods.parts.attention_received import attention_received
from src.methods.quarot import QuaRot
from src.methods.workbench import Workbench

_SHARED = "its input, the encoder's output, is shared by all decoder blocks: all frames count alike"


@dataclass(frozen=True)
class RSQ(QuaRot):
    """Rotates as QuaRot does, and weights every row of the Gram matrices.

    Attributes:
        r_min: importance of the clip's least attended row, where the most attended one has 1.
    """

    r_min: Fraction

    @model_validator(mode="after")
    def _rounder_reads_grams(self) -> Self:
        if "gram" not in self.needs.statistics:
            problem = f"{self.rounder.name} does not read the Gram matrix that tokens are weighted in"
            raise UserError("method.rounder", problem, "Use method@method.rounder=gptq")
        return self

    @property
    def needs(self) -> Needs:
        """Importances follow from the inputs of every block, whatever ``calib.propagate`` says."""
        return super().needs | Needs(clips=True, token_weights=True)

    def transform(self, bench: Workbench) -> Transformed:
        """As QuaRot's; also notes the linears whose rows are not weighted."""
        transformed = super().transform(bench)
        notes = dict(transformed.notes)
        for path in _shared_readers(bench):
            notes[path] = "; ".join(filter(None, (notes.get(path), _SHARED)))
        return replace(transformed, notes=notes)

    def token_weights(self, bench: Workbench, task: BlockTask) -> list[Tensor] | None:
        """``R`` of every batch, [batch, rows]; see :func:`importance`."""
        received = (attention_received(bench.module, task.module, batch) for batch in task.inputs)
        return [importance(each, batch.valid, self.r_min) for each, batch in zip(received, task.inputs, strict=True)]


def importance(received: Tensor, valid: Tensor, r_min: float) -> Tensor:
    """``R`` of each row: its square runs linearly from ``r_min`` to 1 over a clip, times what makes its mean 1.

    The square, because the authors' code scales ``X X^T`` by what it calls the weighting, and the factor, because it
    then lets every clip count by its length.

    Args:
        received: attention each row receives, [batch, rows].
        valid: False where a row is padding, [batch, rows].
        r_min: smallest over largest ``R^2`` of a clip.

    Returns:
        [batch, rows], 0 on padding.
    """
    low = received.masked_fill(~valid, torch.inf).amin(dim=1, keepdim=True)
    high = received.masked_fill(~valid, -torch.inf).amax(dim=1, keepdim=True)
    spread = high - low
    share = torch.where(spread > 0, (received - low) / spread, torch.ones_like(received))
    squared = (r_min + (1 - r_min) * share).masked_fill(~valid, 0)
    return (squared * valid.sum(dim=1, keepdim=True) / squared.sum(dim=1, keepdim=True)).sqrt()


def _shared_readers(bench: Workbench) -> list[str]:
    """Linears that read the encoder's output: k and v of the cross-attention."""
    return [path for link in bench.graph.cross_links for path in link.linears]
