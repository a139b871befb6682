"""Weights that stay at 16 bits inside a quantized weight: single ones (sparse) or whole input columns (dense).

Both replace what the integer grid says at their places. Positions are those of the original weight, whatever order its
codes are stored in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_INT16 = torch.iinfo(torch.int16).max


def index_dtype(columns: int) -> torch.dtype:
    """Narrowest signed integer that holds the column numbers of a weight with ``columns`` columns."""
    return torch.int16 if columns - 1 <= _LARGEST_INT16 else torch.int32


@dataclass(eq=False)
class SparseOutliers:
    """Single weights in compressed sparse rows.

    Attributes:
        values: float16 [n], row by row.
        columns: int16, or int32 for very wide weights, [n]: column of each value.
        rows: int32 [out + 1]; values ``rows[i]`` to ``rows[i + 1]`` lie in row ``i``.
    """

    values: Tensor
    columns: Tensor
    rows: Tensor

    @classmethod
    def where(cls, mask: Tensor, W: Tensor, dtype: torch.dtype = torch.float16) -> SparseOutliers:
        """The weights of ``W`` [out, in], finite in ``dtype``, that are True in ``mask`` [out, in]."""
        row, column = mask.nonzero(as_tuple=True)
        rows = torch.zeros(W.shape[0] + 1, dtype=torch.int32, device=W.device)
        rows[1:] = mask.sum(dim=1).cumsum(0)
        return cls(W[row, column].to(dtype), column.to(index_dtype(W.shape[1])), rows)

    @classmethod
    def joined(cls, parts: Sequence[SparseOutliers]) -> SparseOutliers:
        """Those of a weight whose rows are the parts', one after the other."""
        counts = torch.cat([each.rows.diff() for each in parts])
        rows = torch.cat([counts.new_zeros(1), counts.cumsum(0, dtype=counts.dtype)])
        return cls(torch.cat([each.values for each in parts]), torch.cat([each.columns for each in parts]), rows)

    def write_into(self, weight: Tensor) -> None:
        """Puts the values in their places in ``weight`` [out, in]."""
        per_row = self.rows.diff().long()
        row = torch.repeat_interleave(torch.arange(len(per_row), device=weight.device), per_row)
        weight[row, self.columns.long()] = self.values.to(weight.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensors: 4 per weight (in int16) and 4 per row."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        return {"sparse_values": self.values, "sparse_columns": self.columns, "sparse_rows": self.rows}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> SparseOutliers | None:
        """Inverse of :meth:`tensors`; None where there are none."""
        if "sparse_values" not in tensors:
            return None
        return cls(tensors["sparse_values"], tensors["sparse_columns"], tensors["sparse_rows"])


@dataclass(eq=False)
class DenseColumns:
    """Whole input columns, whose inputs also stay at 16 bits. Their codes are not stored.

    Attributes:
        values: float16 [out, k].
        columns: int16, or int32 for very wide weights, [k], ascending.
    """

    values: Tensor
    columns: Tensor

    @classmethod
    def joined(cls, parts: Sequence[DenseColumns]) -> DenseColumns:
        """Those of a weight whose rows are the parts', one after the other.

        Raises:
            ValueError: the parts have different columns.
        """
        if not all(torch.equal(each.columns, parts[0].columns) for each in parts):
            raise ValueError("the columns at 16 bits are whole ones")
        return cls(torch.cat([each.values for each in parts]), parts[0].columns)

    def write_into(self, weight: Tensor) -> None:
        """Puts the columns in their places in ``weight`` [out, in]."""
        weight[:, self.columns.long()] = self.values.to(weight.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        return {"dense_values": self.values, "dense_columns": self.columns}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> DenseColumns | None:
        """Inverse of :meth:`tensors`; None where there are none."""
        if "dense_values" not in tensors:
            return None
        return cls(tensors["dense_values"], tensors["dense_columns"])
