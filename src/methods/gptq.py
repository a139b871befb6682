"""GPTQ: rounding column by column, each error compensated by the columns still to come.

Frantar et al., *GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers* (arXiv 2210.17323),
Algorithm 1, in its symbols: ``W`` [out, in], ``H = X X^T`` [in, in] (a factor of 2 cancels), ``U`` the upper Cholesky
factor of ``H^-1``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, Fraction, Passes
from src.methods.parts.compensation import blocks, propagation, round_columns
from src.methods.parts.hessian import inverse_cholesky, without_dead_columns
from src.methods.parts.refinement import refine
from src.quant.extras import Extra
from src.quant.grid import Range, nearest_codes, weight_range
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class GPTQ(Method):
    """GPTQ with the options of its authors' code.

    Attributes:
        damp: added to H's diagonal, as a fraction of the diagonal's mean ("Step 3" of the paper).
        block_size: columns between two updates of the remaining weight ("Step 2"); only the speed depends on it.
        act_order: round columns in the order of falling ``H_jj`` instead of from left to right.
        static_groups: find the grids of all groups before rounding, in the original column order.
        range: how the ends of a grid are chosen.
        passes: of :func:`~src.methods.parts.refinement.refine` over the rounded weight; 0, as published, is none.
    """

    damp: Fraction
    block_size: Count
    act_order: bool
    static_groups: bool
    range: Range
    passes: Passes

    @property
    def needs(self) -> Needs:
        """The Gram matrix; a column order is left, where groups follow the order of rounding."""
        order = frozenset({Extra.ORDER}) if self.act_order and not self.static_groups else frozenset()
        return Needs(statistics=frozenset({"gram"}), stores=order)

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """Codes that keep the linear's output, given ``stats.gram``. See :meth:`Method.round`.

        Raises:
            UserError: the statistics are empty or not finite, or no damping makes ``H`` positive definite.
        """
        if stats is None or stats.gram is None:
            raise ValueError("GPTQ needs the Gram matrix of the linear's input")
        return gptq(
            W,
            stats.gram.to(W.device),
            spec,
            damp=self.damp,
            block_size=self.block_size,
            act_order=self.act_order,
            static_groups=self.static_groups,
            search=self.range,
            passes=self.passes,
        )


def gptq(
    W: Tensor,
    H: Tensor,
    spec: WeightSpec,
    *,
    damp: float = 0.01,
    block_size: int = 128,
    act_order: bool = False,
    static_groups: bool = False,
    search: Range = "minmax",
    passes: int = 0,
    scale_dtype: torch.dtype = torch.float16,
    C: Tensor | None = None,
) -> Rounded:
    """Quantizes ``W`` [out, in] so that ``tr((W - Q) H (W - Q)^T)`` is small.

    Grids are found from the original weight, except with groups and without ``static_groups``: then from the
    compensated weight, when a group's first column is reached. With ``act_order`` such groups follow the rounding
    order, which is stored as ``perm``; in all other cases codes are stored in the original column order.

    Args:
        W: weight [out, in], float32; not changed.
        H: Gram matrix [in, in] of the inputs, a sum or a mean: only its proportions matter.
        spec: bits, group size and symmetry.
        damp: see :class:`GPTQ`, as for ``block_size``, ``act_order`` and ``static_groups``.
        block_size: columns between two updates of the remaining weight.
        act_order: whether columns are rounded by falling ``H_jj``.
        static_groups: whether grids are found before rounding.
        search: how the ends of a grid are chosen.
        passes: see :class:`GPTQ`.
        scale_dtype: type the scales are stored in, and rounded to before use.
        C: cross-Gram matrix [in, in] on the scale of ``H``, for :func:`~src.methods.parts.compensation.propagation`;
            None is zero.

    Raises:
        UserError: ``H`` is not finite, zero, or not positive definite at any damping.
    """
    W, H, notes = without_dead_columns(W, H)
    columns, size = W.shape[1], spec.columns_per_group(W.shape[1])
    natural = torch.arange(columns, device=W.device)
    order = torch.argsort(H.diagonal(), descending=True, stable=True) if act_order else natural
    U, raised = inverse_cholesky(H[order][:, order], damp)
    P = None if C is None else propagation(C[order][:, order], U)
    scale, zero = weight_range(W, spec, search, scale_dtype)
    if static_groups or size == columns:
        codes = _round_columns(W[:, order], U, P, spec.bits, block_size, _Grids(scale, zero, order // size))
        weight = QuantizedWeight(codes[:, torch.argsort(order)], scale, zero, spec)
    else:
        refit = partial(weight_range, spec=spec, search=search, scale_dtype=scale_dtype)
        codes = _round_columns(W[:, order], U, P, spec.bits, block_size, _Grids(scale, zero, natural // size, refit))
        weight = QuantizedWeight(codes, scale, zero, spec, order if act_order else None)
    if passes:
        H.diagonal().add_(damp * H.diagonal().mean())
        weight = refine(W, H, weight, passes, C=C, block_size=block_size)
    return Rounded(weight, (*notes, *raised))


class _Grids(NamedTuple):
    """Grids ``scale``, ``zero`` [out, groups], and ``group_of`` [in], each column's group in rounding order.

    With ``refit`` a group's grid is found again, from the compensated columns, when its first column is reached.
    """

    scale: Tensor
    zero: Tensor
    group_of: Tensor
    refit: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


def _round_columns(W: Tensor, U: Tensor, P: Tensor | None, bits: int, block_size: int, grids: _Grids) -> Tensor:
    """Codes uint8 [out, in] of ``W`` [out, in], columns in rounding order, by :func:`round_columns`.

    Blocks end where a refitted group ends: its successor must see every compensation.
    """
    rest = W.T.contiguous()
    codes = torch.empty_like(rest, dtype=torch.uint8)
    size = len(rest) // grids.scale.shape[1] if grids.refit else len(rest)
    group_of = grids.group_of.tolist()
    scales, zeros = grids.scale.T.float().contiguous(), grids.zero.T.float().contiguous()

    def nearest(j: int, w: Tensor) -> Tensor:
        group = group_of[j]
        if grids.refit and j % size == 0:
            scale, zero = grids.refit(rest[j : j + size].T)
            grids.scale[:, group], grids.zero[:, group] = scale[:, 0], zero[:, 0]
            scales[group], zeros[group] = scale[:, 0], zero[:, 0]
        code = nearest_codes(w, scales[group], zeros[group], bits)
        codes[j] = code
        return code.sub_(zeros[group]).mul_(scales[group])

    round_columns(rest, U, blocks(len(rest), size, block_size), nearest, P)
    return codes.T.contiguous()
