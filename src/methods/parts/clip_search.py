"""AWQ's clipping: the largest magnitude of each group of weights, chosen by the error of the group's share of outputs.

Lin et al. (arXiv 2306.00978) and their code (mit-han-lab/llm-awq, ``auto_clip.py``), which samples 512 rows ``x`` of
the input; the Gram matrix stands for all of them: ``sum_x ((w - q) x)^2 = (w - q) H (w - q)^T``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.quant.grid import round_to_nearest

_WEIGHTS_AT_ONCE = 1 << 18  # weights searched at once: the temporaries of a chunk stay in cache


def clip_limits(
    W: Tensor, H: Tensor, spec: WeightSpec, steps: int, max_shrink: float, scale_dtype: torch.dtype = torch.float16
) -> Tensor:
    """Largest magnitude [out, groups] to leave in each group of ``W`` before it is rounded to nearest.

    Args:
        W: weight [out, in], float32.
        H: Gram matrix [in, in] of its inputs.
        spec: the grid.
        steps: shrinking goes by ``1 / steps`` of the group's largest magnitude ...
        max_shrink: ... and stops before this fraction of it is gone.
        scale_dtype: type of the scales.
    """
    size = spec.columns_per_group(W.shape[1])
    rows = max(1, _WEIGHTS_AT_ONCE // W.shape[1])
    blocks = torch.stack([H[start : start + size, start : start + size] for start in range(0, len(H), size)])
    limits = [_search(part, blocks, spec, steps, max_shrink, scale_dtype) for part in torch.split(W, rows)]
    return torch.cat(limits)


def clipped(W: Tensor, limits: Tensor) -> Tensor:
    """``W`` [out, in] with every group's magnitudes cut at ``limits`` [out, groups]."""
    groups = W.view(*limits.shape, -1)
    return groups.clamp(-limits.unsqueeze(2), limits.unsqueeze(2)).view(W.shape)


def _search(
    W: Tensor, blocks: Tensor, spec: WeightSpec, steps: int, max_shrink: float, scale_dtype: torch.dtype
) -> Tensor:
    """:func:`clip_limits` of some rows; ``blocks`` [groups, size, size] are the diagonal blocks of ``H``."""
    groups = W.view(len(W), len(blocks), -1)
    largest = groups.abs().amax(2)
    best, least = largest, torch.full_like(largest, torch.inf)
    for step in range(int(max_shrink * steps)):
        limits = largest * (1 - step / steps)
        D = round_to_nearest(clipped(W, limits), spec, scale_dtype=scale_dtype).dequantize().view_as(groups) - groups
        columns = D.transpose(0, 1)  # [groups, rows, size]
        error = (columns @ blocks).mul_(columns).sum(2).T
        better = error < least
        best, least = torch.where(better, limits, best), torch.where(better, error, least)
    return best
