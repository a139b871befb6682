"""Matrix products of linears, on whatever kernel is fastest.

On the CPU, ``torch`` gives float32 products to MKL, whose kernels for processors that are not Intel's do without
AVX-512; oneDNN's do not, and take half to two thirds of the time there. Both compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # where torch was built with it


def product(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + bias`` for ``x`` [..., in] and ``W`` [out, in]; no gradient passes."""
    if not _is_covered(x, W):
        return linear(x, W, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, W, bias, "none", [], "")
    return result


def _is_covered(x: Tensor, W: Tensor) -> bool:
    return HAS_ONEDNN and x.device.type == "cpu" and x.dtype == W.dtype == torch.float32


class _Product(torch.autograd.Function):
    """:func:`product` that passes gradients on, which are products too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, W)
        return product(x, W, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, W = ctx.saved_tensors
        of_x, of_W, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            product(gradient, W.T) if of_x else None,
            product(rows.T, x.flatten(0, -2).T) if of_W else None,
            rows.sum(0) if of_bias else None,
        )


class FastLinears(TorchFunctionMode):
    """Context inside which linears of a module run as :func:`product`, with gradients where they are wanted."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    if not torch.is_grad_enabled() or not _is_covered(x, W):
        return product(x, W, bias)
    result: Tensor = _Product.apply(x, W, bias)  # type: ignore[no-untyped-call]
    return result
