"""Moving a scale or a shift of a link's channels from the activations into the weights around them.

With ``X`` [rows, in] what a link's linears read, and ``X' = (X - z) / s``: ``X W^T = X' (W diag(s))^T + W z``. The
producer of ``X`` is made to give ``X'`` and the linears to expect it, so the model computes what it did before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.methods.workbench import Workbench
from src.models.graph import Feed, Link
from src.quant.structure import BiasEdit

SHIFTABLE = (Feed.NORM, Feed.LINEAR)


@torch.no_grad()
def fold_scale(model: nn.Module, link: Link, s: Tensor) -> None:
    """Divides the producer's output channels by ``s`` [in] and multiplies the linears' columns by it.

    The producer is a norm (weight and bias), an adapter (the first axis of each of its own parameters is the channel),
    or a linear whose rows reach the link's linears unmixed: values through an attention, or the linear half of a gated
    MLP.

    Raises:
        ValueError: a non-linearity or a table of positions feeds the link.
    """
    if not link.feed.folds:
        raise ValueError(f"{link.name} is fed by {link.feed.in_words}, which no scale passes")
    for parameter in _parameters(model, link.source).values():
        _divide(parameter[_rows(link)], s)
    for path in link.linears:
        weight = model.get_parameter(f"{path}.weight")
        weight.mul_(s.to(weight))


@torch.no_grad()
def fold_shift(bench: Workbench, link: Link, z: Tensor) -> None:
    """Takes ``z`` [in] off the producer's bias and adds ``W z`` to the linears'; modules without a bias get one.

    A constant passes through an attention as it is, because the attention weights of a query sum to 1.

    Raises:
        ValueError: a gate, a non-linearity or an adapter stands between the producer and the linears.
    """
    if link.feed not in SHIFTABLE:
        raise ValueError(f"{link.name} is fed by a {link.feed.value}, which no shift passes")
    for path in (link.source, *link.linears):
        if "bias" not in _parameters(bench.module, path):
            bench.edit(BiasEdit(path))
    bias = bench.module.get_parameter(f"{link.source}.bias")
    bias[_rows(link)] -= z.to(bias)
    for path in link.linears:
        weight, bias = (bench.module.get_parameter(f"{path}.{name}") for name in ("weight", "bias"))
        bias.add_(weight @ z.to(weight))


def _parameters(model: nn.Module, path: str) -> dict[str, nn.Parameter]:
    """Weight, and bias where there is one, of the module at ``path``."""
    return dict(model.get_submodule(path).named_parameters(recurse=False))


def _rows(link: Link) -> slice:
    return slice(None) if link.source_rows is None else slice(*link.source_rows)


def _divide(tensor: Tensor, s: Tensor) -> None:
    """Divides the first axis of ``tensor`` [channels, ...] by ``s`` [channels], in place."""
    tensor.div_(s.to(tensor).view(-1, *[1] * (tensor.dim() - 1)))
