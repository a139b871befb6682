"""Codes and step sizes of a rounded weight, improved in turn: coordinate descent on the layer's output error.

GPTQ settles a column once and never returns to it. Given all others, the best code of a column is known in closed form,
and so is the best step of a row given its codes: CDQuant (arXiv 2406.17542, sec. 3) goes over the columns, and the
closed form of the step is that of a least-squares fit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight


def refine(
    W: Tensor,
    H: Tensor,
    weight: QuantizedWeight,
    passes: int,
    *,
    C: Tensor | None = None,
    block_size: int = 128,
) -> QuantizedWeight:
    """Lowers ``tr((Q - W) H (Q - W)^T) - 2 tr(Q (W C)^T)``, which no step of a pass can raise.

    Args:
        W: weight [out, in], float32; not changed.
        H: Gram matrix [in, in], damped where it may be singular.
        weight: what ``W`` was rounded to, on integer grids; zero points and the order of columns stay.
        passes: over all step sizes, then over all columns.
        C: cross-Gram matrix [in, in] on the scale of ``H`` where the target is ``W X_fp``, as in GPTAQ; None is zero.
        block_size: columns between two updates of all others' gradients; only the speed depends on it.
    """
    if weight.perm is not None:
        W, H = W[:, weight.perm], H[weight.perm][:, weight.perm]
        C = None if C is None else C[weight.perm][:, weight.perm]
    groups, width = weight.scale.shape[1], W.shape[1]
    size = width // groups
    zero = weight.zero.T.float()
    steps = weight.codes.T.float() - zero.repeat_interleave(size, 0)  # [in, out], as everything here
    scale = weight.scale.T.float().contiguous()
    least, most = -zero, weight.spec.max_code - zero
    G = H @ (steps * scale.repeat_interleave(size, 0) - W.T)  # half the gradient in Q
    if C is not None:
        G -= C.T @ W.T
    for _ in range(passes):
        for group in range(groups):
            columns = slice(group * size, (group + 1) * size)
            _refit(G, H[:, columns], steps[columns], columns, scale[group], weight.scale.dtype)
        for start in range(0, width, block_size):
            block = slice(start, min(start + block_size, width))
            of_column = torch.arange(block.start, block.stop, device=W.device) // size
            before = steps[block].clone()
            inner = G[block].clone()
            for j, group in zip(range(block.start, block.stop), of_column.tolist(), strict=True):
                best = (steps[j] - inner[j - start] / (H[j, j] * scale[group])).round_()
                best = torch.minimum(torch.maximum(best, least[group]), most[group])
                inner.addr_(H[block, j], (best - steps[j]) * scale[group])
                steps[j] = best
            G.addmm_(H[:, block], (steps[block] - before) * scale[of_column])
    codes = (steps + zero.repeat_interleave(size, 0)).to(torch.uint8)
    return replace(weight, codes=codes.T.contiguous(), scale=scale.T.to(weight.scale.dtype).contiguous())


def _refit(G: Tensor, H: Tensor, steps: Tensor, columns: slice, scale: Tensor, dtype: torch.dtype) -> None:
    """Moves the step sizes ``scale`` [out] of one group to the best of ``dtype``, where that is better.

    Args:
        G: half the gradient [in, out], which follows.
        H: columns [in, group] of the Gram matrix.
        steps: codes less the zero point [group, out].
        columns: where the group is.
        scale: changed in place.
        dtype: what step sizes are stored in.
    """
    change = H @ steps  # of G by a unit of scale
    curvature = (steps * change[columns]).sum(0)
    slope = (steps * G[columns]).sum(0)
    best = (scale - slope / curvature.clamp(min=torch.finfo(torch.float32).tiny)).to(dtype).float()
    moved = best - scale
    better = (best > 0) & (moved * (2 * slope + moved * curvature) < 0)
    moved = torch.where(better, moved, 0.0)
    G.addcmul_(change, moved)
    scale += moved
