"""Putting quantized weights into a model, with or without quantized inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.quant.fake import FULL_PRECISION, fake_quantize_tokens


class QuantLinear(nn.Linear):
    """A linear that rounds its input to ``abits`` bits, per token and asymmetrically, before the product.

    Its weight is the dequantized one, so the product runs on the ordinary float kernels; bias and result stay floats.
    """

    def __init__(self, linear: nn.Linear, abits: int) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self.abits = abits

    def forward(self, input: Tensor) -> Tensor:
        """``fake_quantize(input) W^T + b`` for ``input`` [..., in]."""
        return nn.functional.linear(fake_quantize_tokens(input, self.abits), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Shape and input bits, shown by ``print(model)``."""
        return f"{super().extra_repr()}, abits={self.abits}"


@torch.no_grad()
def install(module: nn.Module, path: str, weight: Tensor | None, abits: int) -> None:
    """Gives the linear at ``path`` a new weight and the width of its input.

    At ``abits`` = 16 the linear stays (or becomes again) an ``nn.Linear``, so weight-only models run at full-precision
    speed; below, it becomes a :class:`QuantLinear` that shares the same parameters.

    Args:
        module: the model; changed in place.
        path: module path of an ``nn.Linear``.
        weight: dequantized weight [out, in]; None keeps the present one.
        abits: width of the input, 2 to 8, or 16 for not quantized.

    Raises:
        AttributeError: there is no module at ``path``.
        TypeError: the module there is not a linear.
        ValueError: ``weight`` has another shape than the linear's.
    """
    linear = module.get_submodule(path)
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{path} is a {type(linear).__name__}, not a linear")
    if weight is not None:
        if weight.shape != linear.weight.shape:
            raise ValueError(f"{path}: weight {tuple(weight.shape)} for a linear of {tuple(linear.weight.shape)}")
        linear.weight.copy_(weight)
    module.set_submodule(path, _plain(linear) if abits == FULL_PRECISION else QuantLinear(linear, abits))


def _plain(linear: nn.Linear) -> nn.Linear:
    """``linear`` without input quantization, sharing its parameters."""
    if not isinstance(linear, QuantLinear):
        return linear
    plain = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    plain.weight, plain.bias = linear.weight, linear.bias
    return plain
