"""Cross-entropy behind a head that stays as it is, without its logits in memory.

For a few hundred tokens, logits over fifty thousand words take more memory than the rest of a small model; their
gradient is known as soon as they are, so that a few rows of them are enough at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from src.models.products import product

_ROWS = 64  # tokens at once


def head_loss(states: Tensor, W: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of ``targets`` [rows] under the logits ``states W^T``; gradients pass to ``states`` alone.

    Args:
        states: [rows, width].
        W: weight of the head [vocabulary, width].
        targets: int64.
    """
    loss: Tensor = _HeadLoss.apply(states, W.detach(), targets)  # type: ignore[no-untyped-call]
    return loss


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, W: Tensor, targets: Tensor) -> Tensor:
        total, gradients = states.new_zeros(()), []
        for rows, words in zip(torch.split(states, _ROWS), torch.split(targets, _ROWS), strict=True):
            log_p = product(rows, W).log_softmax(-1)
            total -= log_p.gather(-1, words[:, None]).sum()
            if ctx.needs_input_grad[0]:
                of_logits = log_p.exp_()
                of_logits[torch.arange(len(words)), words] -= 1
                gradients.append(product(of_logits, W.T))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients) / len(targets))
        return total / len(targets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None
