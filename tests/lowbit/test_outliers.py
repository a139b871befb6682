from __future__ import annotations

import torch

from src.lowbit.outliers import DenseColumns, SparseOutliers, index_dtype


def test_single_weights_take_four_bytes_each_and_four_per_row() -> None:
    mask = torch.zeros(5, 300, dtype=torch.bool)
    mask[0, 299] = mask[3, 7] = mask[3, 8] = True
    sparse = SparseOutliers.where(mask, torch.randn(5, 300))
    assert sparse.rows.tolist() == [0, 1, 1, 1, 3, 3]
    assert sparse.columns.tolist() == [299, 7, 8]
    assert sparse.nbytes == 3 * 4 + 6 * 4


def test_written_weights_land_where_they_were_and_nowhere_else() -> None:
    W, mask = torch.randn(20, 50), torch.rand(20, 50) < 0.1
    weight = torch.zeros(20, 50)
    SparseOutliers.where(mask, W).write_into(weight)
    assert torch.equal(weight, torch.where(mask, W.half().float(), 0.0))


def test_a_weight_without_outliers_stores_only_its_row_pointers() -> None:
    sparse = SparseOutliers.where(torch.zeros(4, 6, dtype=torch.bool), torch.randn(4, 6))
    weight = torch.ones(4, 6)
    sparse.write_into(weight)
    assert torch.equal(weight, torch.ones(4, 6))
    assert sparse.nbytes == 5 * 4


def test_wide_weights_get_wide_column_numbers() -> None:
    assert index_dtype(1 << 15) == torch.int16
    assert index_dtype((1 << 15) + 1) == torch.int32


def test_whole_columns_take_two_bytes_a_weight_and_two_a_column() -> None:
    dense = DenseColumns(torch.randn(10, 3).half(), torch.tensor([1, 2, 9], dtype=torch.int16))
    weight = torch.zeros(10, 12)
    dense.write_into(weight)
    assert torch.equal(weight[:, [1, 2, 9]], dense.values.float())
    assert int((weight != 0).any(0).sum()) == 3
    assert dense.nbytes == 10 * 3 * 2 + 3 * 2
