from __future__ import annotations

import pytest
import torch

from src.quant.loss import output_error


def test_the_gram_matrix_gives_the_squared_error_of_the_outputs() -> None:
    W, Q, X = torch.randn(5, 12), torch.randn(5, 12), torch.randn(100, 12)
    direct = (X @ (W - Q).T).double().square().sum().item()
    assert output_error(W, Q, X.T @ X) == pytest.approx(direct, rel=1e-5)
