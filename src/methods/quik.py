"""QUIK: GPTQ on most columns; those with the largest inputs stay at 16 bits, in the weight and in the input.

Ashkboos et al., *QUIK: Towards End-to-End 4-Bit Inference on Generative Large Language Models* (arXiv 2310.09259),
sec. 3: outlier columns are moved behind all others, so that GPTQ lets them make up for every rounding error.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.outliers import DenseColumns, index_dtype
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import Count, Fraction
from src.methods.parts.compensation import blocks, round_columns
from src.methods.parts.hessian import inverse_cholesky, without_dead_columns
from src.quant.extras import Extra
from src.quant.grid import Range, nearest_codes, weight_range
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class QUIK(Method):
    """QUIK with the options of its authors' code, at any width.

    Attributes:
        outlier_share: input columns that stay at 16 bits, as a share of the linear's input width; at least one
            does, and at least one does not.
        damp: added to H's diagonal, as a fraction of the diagonal's mean.
        block_size: columns between two updates of the remaining weight; only the speed depends on it.
        act_order: round columns in the order of falling ``H_jj`` instead of, as the authors do, rising largest input.
        range: how the ends of a grid are chosen.
    """

    outlier_share: Fraction
    damp: Fraction
    block_size: Count
    act_order: bool
    range: Range

    @property
    def needs(self) -> Needs:
        return Needs(statistics=frozenset({"gram", "minimum", "maximum"}), stores=frozenset({Extra.DENSE}))

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """Codes and 16-bit columns, given ``stats.gram`` and ``stats.abs_max``. See :meth:`Method.round`.

        Raises:
            UserError: the statistics are empty or not finite, or no damping makes ``H`` positive definite.
        """
        if stats is None or stats.gram is None:
            raise ValueError("QUIK needs the Gram matrix and the extremes of the linear's input")
        return quik(
            W,
            stats.gram.to(W.device),
            stats.abs_max.to(W.device),
            spec,
            outliers=min(max(1, round(self.outlier_share * W.shape[1])), W.shape[1] - 1),
            damp=self.damp,
            block_size=self.block_size,
            act_order=self.act_order,
            search=self.range,
        )


def quik(
    W: Tensor,
    H: Tensor,
    abs_max: Tensor,
    spec: WeightSpec,
    *,
    outliers: int,
    damp: float = 0.01,
    block_size: int = 128,
    act_order: bool = False,
    search: Range = "minmax",
    storage: torch.dtype = torch.float16,
) -> Rounded:
    """Quantizes all but ``outliers`` columns of ``W`` [out, in] so that ``tr((W - Q) H (W - Q)^T)`` is small.

    Grids are found before rounding, from the columns that are rounded; groups are consecutive in the original order.

    Args:
        W: weight [out, in], float32; not changed.
        H: Gram matrix [in, in] of the inputs, a sum or a mean: only its proportions matter.
        abs_max: largest magnitude of every input, [in]; the columns of the largest ones stay at 16 bits.
        spec: bits, group size and symmetry.
        outliers: number of those columns, below in.
        damp: fraction of the diagonal's mean that is added to the diagonal.
        block_size: columns between two updates of the remaining weight.
        act_order: whether columns are rounded by falling ``H_jj`` instead of rising ``abs_max``.
        search: how the ends of a grid are chosen.
        storage: type that scales and 16-bit columns are stored in; scales are rounded to it before use.

    Raises:
        UserError: ``H`` is not finite, zero, or not positive definite at any damping.
        ValueError: ``W`` is not finite, or too large for ``storage``.
    """
    W, H, notes = without_dead_columns(W, H)
    columns, size = W.shape[1], spec.columns_per_group(W.shape[1])
    base = columns - outliers
    order = _order(abs_max, H, base, act_order=act_order)
    U, raised = inverse_cholesky(H[order][:, order], damp)
    kept = order[base:].sort().values
    # Every range contains 0, so columns of zeros do not change a group's grid.
    scale, zero = weight_range(W.index_fill(1, kept, 0), spec, search, storage)
    rest, codes = W[:, order].T.contiguous(), torch.zeros_like(W.T, dtype=torch.uint8)

    def round_column(j: int, w: Tensor) -> Tensor:
        group = order[j] // size
        s, z = scale[:, group].float(), zero[:, group].float()
        code = nearest_codes(w, s, z, spec.bits)
        codes[order[j]] = code
        return (code - z) * s

    round_columns(rest, U, blocks(base, base, block_size), round_column)
    values = rest.T[:, torch.argsort(order)][:, kept].to(storage)
    if not torch.isfinite(values).all():
        raise ValueError(f"a 16-bit column exceeds {torch.finfo(storage).max}, the largest that can be stored")
    dense = DenseColumns(values, kept.to(index_dtype(columns)))
    weight = QuantizedWeight(codes.T.contiguous(), scale, zero, spec, dense=dense)
    return Rounded(weight, (*notes, *raised))


def _order(abs_max: Tensor, H: Tensor, base: int, *, act_order: bool) -> Tensor:
    """Columns in rounding order, int64 [in]: ``base`` columns to be rounded, then those that stay at 16 bits."""
    rising = torch.argsort(abs_max, stable=True)
    if not act_order:
        return rising
    rounded = rising[:base]
    by_power = torch.argsort(H.diagonal()[rounded], descending=True, stable=True)
    return torch.cat([rounded[by_power], rising[base:]])
