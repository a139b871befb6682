"""Rounding that gradients pass through: fake quantization of weights and of linear inputs, for methods that learn.

Rounding counts as the identity (Bengio et al., arXiv 1308.3432) and clamping as itself, so that a scale learns from the
rounding error of the values on its grid and from the clipping error of those beyond it. Zero points are constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.quant.linear import QuantLinear
from src.settings import FULL_PRECISION

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


class _FakeQuantize(torch.autograd.Function):
    """``s (clamp(round(w / s) + z, 0, max_code) - z)``; one pass saves what both gradients need."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, zero: Tensor, max_code: int) -> Tensor:
        steps = w / scale
        rounded = steps.round()
        code = torch.minimum(torch.maximum(rounded, -zero), max_code - zero)
        inside = rounded == code
        ctx.save_for_backward(torch.where(inside, code - steps, code), inside)
        return code * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        slope, inside = ctx.saved_tensors
        (gradient,) = gradients
        of_w = gradient * inside if ctx.needs_input_grad[0] else None
        of_scale = (gradient * slope).sum(-1, keepdim=True) if ctx.needs_input_grad[1] else None
        return of_w, of_scale, None, None


def fake_quantize(w: Tensor, scale: Tensor, zero: Tensor, max_code: int) -> Tensor:
    """Rounds ``w`` [..., columns] to the grids ``scale`` and ``zero`` [..., 1]; both learn."""
    quantized: Tensor = _FakeQuantize.apply(w, scale, zero, max_code)  # type: ignore[no-untyped-call]
    return quantized


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` rounded to ``dtype``, the type scales are stored in; gradients pass unchanged."""
    return x + (x.to(dtype).to(x.dtype) - x).detach()


def fake_quantize_tokens(x: Tensor, bits: int) -> Tensor:
    """:func:`src.quant.fake.fake_quantize_tokens` (asymmetric), differentiable in ``x`` and through its range.

    What learns to narrow the range of ``x`` [..., width], such as an equalising scale, needs the second of these.
    """
    max_code = (1 << bits) - 1
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / max_code).clamp(min=_SMALLEST_SCALE)
    return fake_quantize(x, scale, (-low / scale).detach().round(), max_code)


class _LearningLinear(QuantLinear):
    """A :class:`QuantLinear` with the same values and with gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """The product with the rounded input."""
        x = fake_quantize_tokens(self.rotated(input), self.abits)
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
