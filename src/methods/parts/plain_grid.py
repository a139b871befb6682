"""What a method that learns codes can begin with: integer grids and nothing else."""

from __future__ import annotations

import torch

from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight


def require_plain_grid(weight: QuantizedWeight, start: str, path: str = "a weight") -> None:
    """Checks that ``weight``, made by the method called ``start``, is an integer grid in the original column order.

    Raises:
        UserError: it has an order of columns, 16-bit weights, quantized statistics or real zero points.
    """
    extras = (weight.perm, weight.statistics, weight.sparse, weight.dense)
    if weight.zero.dtype != torch.uint8 or any(each is not None for each in extras):
        problem = f"{start} does not store {path} as codes on plain grids in the original column order"
        raise UserError("method.start", problem, "Use method@method.start=awq, omniquant, rtn or rtn_mse")
