"""Rounding that gradients pass through: fake quantization of weights and of linear inputs, for methods that learn.

Rounding counts as the identity (Bengio et al., arXiv 1308.3432) and clamping as itself, so that a scale learns from the
rounding error of the values on its grid and from the clipping error of those beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.quant.fake import clipped, grid_between, straight_through
from src.quant.linear import QuantLinear
from src.settings import FULL_PRECISION


class _FakeQuantize(torch.autograd.Function):
    """``s (clamp(round(w / s + v) + z, 0, 2^b - 1) - z)``; one pass saves what all gradients need."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, bits: int, scale: Tensor, zero: Tensor, offset: Tensor | None) -> Tensor:
        steps = w / scale
        rounded = steps.round() if offset is None else (steps + offset).round_()
        code = clipped(rounded, bits, zero)
        inside = rounded == code
        ctx.save_for_backward(torch.where(inside, code - steps, code), inside, scale)
        return code * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slope, inside, scale = ctx.saved_tensors
        (gradient,) = gradients
        learns_w, _, learns_scale, learns_zero, learns_offset = ctx.needs_input_grad
        passed = gradient * inside if learns_w or learns_zero or learns_offset else gradient
        return (
            passed if learns_w else None,
            None,
            (gradient * slope).sum(-1, keepdim=True) if learns_scale else None,
            scale * (passed - gradient).sum(-1, keepdim=True) if learns_zero else None,
            passed * scale if learns_offset else None,
        )


def learning_quantize(w: Tensor, bits: int, scale: Tensor, zero: Tensor, offset: Tensor | None = None) -> Tensor:
    """:func:`src.quant.fake.fake_quantize` of ``w`` [..., columns] to ``scale``, ``zero`` [..., 1], with gradients.

    All but ``bits`` can learn. ``offset`` [..., columns] is added, in steps, to what is rounded; values beyond the
    grid's ends learn from where these are, which is how ``zero`` learns.
    """
    quantized: Tensor = _FakeQuantize.apply(w, bits, scale, zero, offset)  # type: ignore[no-untyped-call]
    return quantized


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` rounded to ``dtype``, the type scales are stored in; gradients pass unchanged."""
    return straight_through(x, x.to(dtype).to(x.dtype))


def learning_quantize_tokens(x: Tensor, bits: int) -> Tensor:
    """:func:`src.quant.fake.fake_quantize_tokens` (asymmetric), with gradients to ``x`` and through its range.

    What learns to narrow the range of ``x`` [..., width], such as an equalising scale, needs the second of these.
    """
    scale, zero = grid_between(x.amin(-1, keepdim=True), x.amax(-1, keepdim=True), bits, symmetric=False)
    return learning_quantize(x, bits, scale, zero.detach())


class _LearningLinear(QuantLinear):
    """A :class:`QuantLinear` with the same values and with gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """The product with the rounded input."""
        x = learning_quantize_tokens(self.rotated(input), self.abits)
        return nn.functional.linear(x, self.weight, self.bias)


@contextmanager
def quantized_inputs(module: nn.Module, abits: Mapping[str, int]) -> Iterator[None]:
    """Inside, the linears of ``module`` round their inputs to ``abits`` bits, by name in it; 16 does nothing."""
    originals = {name: module.get_submodule(name) for name, bits in abits.items() if bits != FULL_PRECISION}
    for name, linear in originals.items():
        assert isinstance(linear, nn.Linear)
        rotation = linear.rotation if isinstance(linear, QuantLinear) else None
        module.set_submodule(name, _LearningLinear(linear, abits[name], rotation))
    try:
        yield
    finally:
        for name, linear in originals.items():
            module.set_submodule(name, linear)
