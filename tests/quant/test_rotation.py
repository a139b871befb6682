from __future__ import annotations

import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor

from src.quant.fake import QuantizedKVLayer, fake_quantize_tokens, kv_layer_factory
from src.quant.rotation import Rotation


def orthogonal(n: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


ROTATIONS = pytest.mark.parametrize(
    "rotation",
    [
        Rotation(orthogonal(12)),
        Rotation(orthogonal(4), orthogonal(3)),
        Rotation(orthogonal(4), 3),
        Rotation(4, orthogonal(3)),
        Rotation(4, 3),
    ],
    ids=["whole", "two factors", "every slice alike", "slices with each other", "identity"],
)


@ROTATIONS
@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 5, 12)])
def test_it_multiplies_the_last_axis_by_its_matrix(rotation: Rotation, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(rotation(x), x @ rotation.matrix().double())
    torch.testing.assert_close(rotation.undo(rotation(x)), x)


@ROTATIONS
def test_inputs_need_not_be_contiguous(rotation: Rotation) -> None:
    x = torch.randn(12, 5, dtype=torch.float64).T
    torch.testing.assert_close(rotation(x), x.contiguous() @ rotation.matrix().double())


def test_a_matrix_that_also_centres_is_applied_as_it_is() -> None:
    centred = (torch.eye(12) - 1 / 12).double() @ orthogonal(12)
    x = torch.randn(5, 12, dtype=torch.float64)
    torch.testing.assert_close(Rotation(centred)(x), (x - x.mean(-1, keepdim=True)) @ orthogonal(12))


def test_a_cache_rounds_keys_in_the_rotated_basis_and_values_as_they_are() -> None:
    H = orthogonal(8).float()
    layer = kv_layer_factory(4, Rotation(H))()
    keys, values = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    stored_keys, stored_values = layer.update(keys, values)
    torch.testing.assert_close(stored_keys, fake_quantize_tokens(keys @ H, 4) @ H.T)
    assert torch.equal(stored_values, fake_quantize_tokens(values, 4))


def test_keys_with_an_outlier_channel_are_kept_better_by_a_rotated_cache() -> None:
    keys = torch.randn(2, 3, 50, 32)
    keys[..., 7] += 30
    keys[..., 20] -= 30
    rotation = Rotation(torch.tensor(hadamard(32) / 32**0.5, dtype=torch.float32))
    rotated, plain = (QuantizedKVLayer(4, each).update(keys, keys)[0] for each in (rotation, None))
    assert (rotated - keys).norm() < (plain - keys).norm() / 2
