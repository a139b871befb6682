"""Matrix products without gradients, on whatever kernel is fastest.

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
    """``x W^T + bias`` for ``x`` [..., in] and ``W`` [out, in]; without gradients."""
    if HAS_ONEDNN and x.device.type == "cpu" and x.dtype == W.dtype == torch.float32:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, W, bias, "none", [], "")
        return result
    return linear(x, W, bias)


class FastLinears(TorchFunctionMode):
    """Context inside which linears of a module run as :func:`product` where no gradients are wanted."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of ``func``."""
        if func is linear and not torch.is_grad_enabled():
            return product(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
