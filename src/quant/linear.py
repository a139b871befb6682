"""Putting quantized weights into a model, with or without quantized inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.quant.inputs import PER_TOKEN, InputGrid
from src.quant.rotation import Rotation
from src.settings import FULL_PRECISION


class QuantLinear(nn.Linear):
    """A linear that prepares its input before the product: rotates it, then rounds it to ``abits`` bits.

    ``grid`` says on which grids; at 16 bits nothing is rounded. ``exact``, int64 indices [k] of inputs or None, names
    those that are neither rounded nor widen the grid of the others. The weight is the dequantized one, so the product
    runs on the ordinary float kernels; bias and result stay floats.
    """

    exact: Tensor | None

    def __init__(
        self,
        linear: nn.Linear,
        abits: int,
        rotation: Rotation | None = None,
        exact: Tensor | None = None,
        grid: InputGrid = PER_TOKEN,
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self.abits = abits
        self.rotation = rotation
        self.grid = grid.to(linear.weight.device)
        self.register_buffer("exact", None if exact is None else exact.to(linear.weight.device), persistent=False)

    def rotated(self, x: Tensor) -> Tensor:
        """What the weight is multiplied with, before it is rounded."""
        return x if self.rotation is None else self.rotation(x)

    def forward(self, input: Tensor) -> Tensor:
        """``fake_quantize(input Q) W^T + b`` for ``input`` [..., in]."""
        return nn.functional.linear(self.prepared(input), self.weight, self.bias)

    def prepared(self, x: Tensor) -> Tensor:
        """What the weight is multiplied with."""
        rotated = self.rotated(x)
        return rotated if self.abits == FULL_PRECISION else self._rounded(rotated)

    def _rounded(self, x: Tensor) -> Tensor:
        if self.exact is None:
            return self.grid.round(x, self.abits)
        # Every grid contains 0, so a 0 in the place of an exact input changes no grid.
        rounded = self.grid.round(x.index_fill(-1, self.exact, 0), self.abits)
        return rounded.index_copy(-1, self.exact, x.index_select(-1, self.exact))

    def extra_repr(self) -> str:
        """Shape and input bits, shown by ``print(model)``."""
        exact = "" if self.exact is None else f", exact_inputs={len(self.exact)}"
        return f"{super().extra_repr()}, abits={self.abits}{exact}"


@torch.no_grad()
def install(
    module: nn.Module,
    path: str,
    weight: Tensor | None,
    abits: int,
    exact: Tensor | None = None,
    grid: InputGrid = PER_TOKEN,
) -> None:
    """Gives the linear at ``path`` a new weight and the width of its input.

    At ``abits`` = 16 the linear stays (or becomes again) an ``nn.Linear``, so weight-only models run at full-precision
    speed; below, it becomes a :class:`QuantLinear` that shares the same parameters.

    Args:
        module: the model; changed in place.
        path: module path of an ``nn.Linear``.
        weight: dequantized weight [out, in]; None keeps the present one.
        abits: width of the input, 2 to 8, or 16 for not quantized.
        exact: int64 indices [k] of inputs that stay at 16 bits whatever ``abits`` is; None means none.
        grid: what the input, rotated where it is, is rounded to.

    Raises:
        AttributeError: there is no module at ``path``.
        TypeError: the module there is not a linear.
        ValueError: ``weight`` has another shape than the linear's.
    """
    linear = _linear(module, path)
    if weight is not None:
        if weight.shape != linear.weight.shape:
            raise ValueError(f"{path}: weight {tuple(weight.shape)} for a linear of {tuple(linear.weight.shape)}")
        linear.weight.copy_(weight)
    _replace(module, path, abits, linear.rotation if isinstance(linear, QuantLinear) else None, exact, grid)


def rotate_input(module: nn.Module, path: str, rotation: Rotation) -> None:
    """Makes the linear at ``path`` rotate its input; the caller has rotated its weight.

    Raises:
        AttributeError: there is no module at ``path``.
        TypeError: the module there is not a linear.
    """
    linear = _linear(module, path)
    abits, exact = (linear.abits, linear.exact) if isinstance(linear, QuantLinear) else (FULL_PRECISION, None)
    _replace(module, path, abits, rotation, exact, linear.grid if isinstance(linear, QuantLinear) else PER_TOKEN)


def _linear(module: nn.Module, path: str) -> nn.Linear:
    linear = module.get_submodule(path)
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{path} is a {type(linear).__name__}, not a linear")
    return linear


def _replace(
    module: nn.Module, path: str, abits: int, rotation: Rotation | None, exact: Tensor | None, grid: InputGrid
) -> None:
    """A :class:`QuantLinear` where the input has to be prepared, else an ``nn.Linear``; parameters are shared."""
    linear = _linear(module, path)
    if abits != FULL_PRECISION or rotation is not None:
        module.set_submodule(path, QuantLinear(linear, abits, rotation, exact, grid))
    elif isinstance(linear, QuantLinear):
        plain = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
        plain.weight, plain.bias = linear.weight, linear.bias
        module.set_submodule(path, plain)
