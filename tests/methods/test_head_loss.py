"""The loss that needs no logits in memory is the one that does."""

from __future__ import annotations

import torch

from src.methods.parts.head_loss import head_loss


def test_loss_and_gradient_are_those_of_the_whole_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(150, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    W = torch.randn(99, 16, generator=generator, dtype=torch.float64)
    targets = torch.randint(99, (150,), generator=generator)
    expected = torch.nn.functional.cross_entropy(states @ W.T, targets)
    (gradient,) = torch.autograd.grad(3 * expected, states)
    loss = head_loss(states, W, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, states)[0], gradient, rtol=1e-10, atol=1e-14)
