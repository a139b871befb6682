"""SpQR: GPTQ on small groups with quantized statistics, and single weights at 16 bits where no grid fits.

Dettmers et al., *SpQR: A Sparse-Quantized Representation for Near-Lossless LLM Weight Compression* (arXiv 2306.03078),
Algorithm 1. A weight is an outlier when its squared error ``((w - q) / U_jj)^2`` exceeds ``threshold`` times the mean
of ``var(w_j) / U_jj^2`` over columns ``j``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.errors import UserError
from src.lowbit.double_quantization import QuantizedStatistic, QuantizedStatistics, StatisticsSpec
from src.lowbit.granularity import PER_CHANNEL, QuantizedWeight, WeightSpec
from src.lowbit.outliers import SparseOutliers
from src.methods.base import Method, Needs, Rounded
from src.methods.parameters import CodeBits, Count, Fraction
from src.methods.parts.compensation import blocks, round_columns
from src.methods.parts.hessian import inverse_cholesky, without_dead_columns
from src.methods.parts.spqr_grid import Grid, fit_grid, nearest
from src.methods.workbench import Workbench
from src.quant.extras import Extra
from src.quant.link_statistics import LinkStatistics


@dataclass(frozen=True)
class SpQR(Method):
    """SpQR with the options of its authors' code.

    Attributes:
        group_size: columns that share a grid where the bit-config sets no group size.
        statistics_bits: width of the codes that scales and zero points are stored as.
        statistics_group: consecutive rows whose scales (zero points) of one column group share a grid.
        outlier_threshold: squared error, relative to the mean variance of a column, above which a weight keeps 16
            bits; smaller means more outliers.
        damp: added to H's diagonal, as a fraction of the diagonal's mean.
        block_size: columns between two updates of the remaining weight; only the speed depends on it.
        act_order: round columns in the order of falling ``H_jj`` instead of from left to right.
    """

    group_size: Count
    statistics_bits: CodeBits
    statistics_group: Count
    outlier_threshold: Annotated[
        float, Field(gt=0, description="a positive number, or .inf for no outliers", examples=["0.2"])
    ]
    damp: Fraction
    block_size: Count
    act_order: bool

    @property
    def needs(self) -> Needs:
        """The Gram matrix; outliers, statistics that are quantized themselves, and perhaps a column order are left."""
        order = frozenset({Extra.ORDER}) if self.act_order else frozenset()
        return Needs(statistics=frozenset({"gram"}), stores=frozenset({Extra.SPARSE, Extra.REAL_ZEROS}) | order)

    def plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """The bit-config, with ``group_size`` where that has none.

        Raises:
            UserError: ``group_size`` does not divide the input width of a linear that needs it.
        """
        for path, spec in bench.plan.items():
            width = bench.module.get_parameter(f"{path}.weight").shape[1]
            if spec and spec.group_size == PER_CHANNEL and width % self.group_size:
                problem = f"{self.group_size} does not divide the input width {width} of {path}"
                raise UserError("method.group_size", problem, "Set it, or group_size, to a size that does, e.g. 8")
        return {path: self._grouped(spec) for path, spec in bench.plan.items()}

    def _grouped(self, spec: WeightSpec | None) -> WeightSpec | None:
        return replace(spec, group_size=self.group_size) if spec and spec.group_size == PER_CHANNEL else spec

    def round(self, W: Tensor, spec: WeightSpec, stats: LinkStatistics | None) -> Rounded:
        """Codes, quantized statistics and outliers, given ``stats.gram``. See :meth:`Method.round`.

        Raises:
            UserError: the statistics are empty or not finite, no damping makes ``H`` positive definite, or groups
                have one column.
        """
        if stats is None or stats.gram is None:
            raise ValueError("SpQR needs the Gram matrix of the linear's input")
        return spqr(
            W,
            stats.gram.to(W.device),
            spec,
            statistics=StatisticsSpec(self.statistics_bits, self.statistics_group),
            outlier_threshold=self.outlier_threshold,
            damp=self.damp,
            block_size=self.block_size,
            act_order=self.act_order,
        )


def spqr(
    W: Tensor,
    H: Tensor,
    spec: WeightSpec,
    *,
    statistics: StatisticsSpec,
    outlier_threshold: float = 0.2,
    damp: float = 1.0,
    block_size: int = 128,
    act_order: bool = True,
    storage: torch.dtype = torch.float16,
) -> Rounded:
    """Quantizes ``W`` [out, in] so that ``tr((W - Q) H (W - Q)^T)`` is small.

    Args:
        W: weight [out, in], float32; not changed.
        H: Gram matrix [in, in] of the inputs, a sum or a mean: only its proportions matter.
        spec: bits, group size and symmetry.
        statistics: how scales and zero points are quantized.
        outlier_threshold: see :class:`SpQR`, as for ``damp``, ``block_size`` and ``act_order``.
        damp: fraction of the diagonal's mean that is added to the diagonal.
        block_size: columns between two updates of the remaining weight.
        act_order: whether columns are rounded, and stored, by falling ``H_jj``.
        storage: type that outliers and second-level grids are stored in, and rounded to before use.

    Raises:
        UserError: ``H`` is not finite, zero, or not positive definite at any damping, or groups have one column.
        ValueError: ``W`` is not finite, or too large for ``storage``.
    """
    if not (W.abs() < torch.finfo(storage).max).all():
        raise ValueError(f"the weight holds NaN or values beyond {torch.finfo(storage).max}")
    size = spec.columns_per_group(W.shape[1])
    if size < 2:
        raise UserError("group_size", f"{size} leaves nothing to compare an outlier with", "Use at least 2, e.g. 16")
    W, H, notes = without_dead_columns(W, H)
    order = torch.argsort(H.diagonal(), descending=True, stable=True) if act_order else None
    if order is not None:
        W, H = W[:, order], H[order][:, order]
    U, raised = inverse_cholesky(H, damp)
    u = U.diagonal()
    threshold = outlier_threshold * float((W.var(dim=0) / u.square()).mean())
    rule = _Rule(W.T.contiguous(), u, spec, statistics, threshold, storage)
    round_columns(rule.rest, U, blocks(W.shape[1], size, block_size), rule)
    return Rounded(rule.weight(order), (*notes, *raised))


class _Rule:
    """Rounds one column after the other: a new grid per group, then codes, then outliers back to 16 bits."""

    def __init__(
        self,
        rest: Tensor,
        u: Tensor,
        spec: WeightSpec,
        statistics: StatisticsSpec,
        threshold: float,
        storage: torch.dtype,
    ) -> None:
        self.rest = rest
        self._u, self._spec, self._statistics = u, spec, statistics
        self._threshold, self._storage = threshold, storage
        self._size = spec.columns_per_group(len(rest))
        self._codes = torch.empty_like(rest, dtype=torch.uint8)
        self._outliers = torch.zeros_like(rest, dtype=torch.bool)
        self._grids: list[Grid] = []

    def __call__(self, j: int, w: Tensor) -> Tensor:
        """What column ``j``, now ``w`` [out], becomes."""
        if j % self._size == 0:
            group = slice(j, j + self._size)
            args = (self._threshold, self._spec, self._statistics, self._storage)
            self._grids.append(fit_grid(self.rest[group], self._u[group], *args))
        grid = self._grids[-1]
        codes = nearest(w, grid.scale, grid.zero, self._spec)
        q = (codes - grid.zero) * grid.scale
        outlier = ((w - q) / self._u[j]).square() > self._threshold
        self._outliers[j] = outlier
        self._codes[j] = codes
        return torch.where(outlier, w.to(self._storage).float(), q)

    def weight(self, order: Tensor | None) -> QuantizedWeight:
        """Everything that has to be stored; ``order`` is the rounding order, None for left to right."""
        scale = _joined([grid.stored_scale for grid in self._grids])
        zeros = [grid.stored_zero for grid in self._grids if grid.stored_zero is not None]
        zero = _joined(zeros) if zeros else None
        scales = scale.values()
        middle = torch.full(scales.shape, self._spec.middle_code, dtype=torch.uint8, device=scales.device)
        return QuantizedWeight(
            self._codes.T.contiguous(),
            scales,
            middle if zero is None else zero.values(),
            self._spec,
            order,
            QuantizedStatistics(scale, zero),
            self._sparse(order),
        )

    def _sparse(self, order: Tensor | None) -> SparseOutliers:
        back = slice(None) if order is None else torch.argsort(order)
        return SparseOutliers.where(self._outliers.T[:, back], self.rest.T[:, back], self._storage)


def _joined(groups: list[QuantizedStatistic]) -> QuantizedStatistic:
    """One statistic of all groups from those of single groups."""
    codes, step, lowest = (torch.cat([getattr(each, name) for each in groups], dim=1) for name in _TENSORS)
    return QuantizedStatistic(codes, step, lowest, groups[0].spec)


_TENSORS = ("codes", "step", "lowest")
