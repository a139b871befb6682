"""Preparing a residual stream for rotation: LayerNorms without weight and bias that need not subtract the mean.

``LN(x) = n(x) * gamma + beta``, where ``n`` subtracts the mean and divides by the deviation. ``gamma`` and ``beta`` go
into the linears that follow, ``W (n * gamma + beta) + b = (W diag(gamma)) n + (b + W beta)``, and everything that
writes into the stream is made to write a mean of zero, so that ``n`` is an RMS norm, which commutes with rotations
(Ashkboos et al., SliceGPT, arXiv 2401.15024, sec. 3; QuaRot, arXiv 2404.00456, sec. 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.methods.workbench import Workbench
from src.models.graph import Feed, Link
from src.quant.structure import BiasEdit, RMSNormEdit


def centering(d: int) -> Tensor:
    """``C = I - 1 1^T / d``, float64 [d, d]: ``x C`` is ``x`` [..., d] without its mean."""
    return torch.eye(d, dtype=torch.float64) - 1 / d


def assign(parameter: Tensor, value: Tensor) -> None:
    """Writes ``value`` into ``parameter``, in the parameter's type and place."""
    with torch.no_grad():
        parameter.copy_(value)


def linear_at(bench: Workbench, path: str) -> nn.Linear:
    module = bench.module.get_submodule(path)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{path} is a {type(module).__name__}, not a linear")
    return module


def center_streams(bench: Workbench) -> None:
    """Folds every norm inside the model and centres what is written; afterwards the streams may be rotated.

    The final norm of the encoder is folded into the cross-attention's k and v of all decoder blocks. That of the
    decoder stays: it feeds the head, whose weight is the embedding's; so does the encoder's before an adapter.
    Only what enters a stream from outside, front-end output and embeddings, is not centred yet:
    :func:`src.methods.parts.rotate.fold_rotations` sees to it.
    """
    for link in bench.graph.links:
        if link.feed is Feed.NORM:
            _fold_norm(bench, link)
        elif link.writes_stream:
            for path in link.linears:
                _center_output(linear_at(bench, path))


def _fold_norm(bench: Workbench, link: Link) -> None:
    norm = bench.module.get_submodule(link.source)
    if not isinstance(norm, nn.LayerNorm):
        raise TypeError(f"{link.source} is a {type(norm).__name__}, not a LayerNorm")
    shift: Tensor | None = norm.bias
    gamma, beta = norm.weight.detach().double(), None if shift is None else shift.detach().double()
    for path in link.linears:
        linear = linear_at(bench, path)
        W = linear.weight.detach().double()
        if beta is not None:
            if getattr(linear, "bias", None) is None:
                bench.edit(BiasEdit(path))
            assign(linear.bias, linear.bias.detach().double() + W @ beta)
        assign(linear.weight, W * gamma)
    assign(norm.weight, torch.ones_like(gamma))
    if shift is not None:
        assign(shift, torch.zeros_like(gamma))
    bench.edit(RMSNormEdit(link.source))


def _center_output(linear: nn.Linear) -> None:
    W = linear.weight.detach().double()
    assign(linear.weight, W - W.mean(dim=0))
    if linear.bias is not None:
        b = linear.bias.detach().double()
        assign(linear.bias, b - b.mean())
