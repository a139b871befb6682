from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.quant.checkpoint import leftover_tensors, load_weights, save_weights
from src.quant.linear import QuantLinear
from src.quant.rotation import Rotation
from src.quant.structure import (
    BiasEdit,
    Edit,
    RMSNorm,
    RMSNormEdit,
    RotationEdit,
    apply_edit,
    key_rotation,
    rotation_edit,
)


class Block(nn.Module):
    """A norm, a linear without bias, and a linear with one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.fc1, self.fc2 = nn.Linear(8, 6, bias=False), nn.Linear(6, 8)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.fc2(self.fc1(self.norm(x))) * scale


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    module = nn.ModuleDict({"block": Block()}).double().eval().requires_grad_(False)
    module["block"].norm.weight.normal_()
    module["block"].norm.bias.normal_()
    return module


def orthogonal(n: int) -> Tensor:
    return torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64))[0]


X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
EDITS: list[tuple[Edit, Tensor | None, Tensor | None]] = [
    (BiasEdit("block.fc1"), None, None),
    (RMSNormEdit("block.norm"), None, None),
    (rotation_edit("rotate_linear", "block.fc1", orthogonal(4), orthogonal(2)), orthogonal(4), orthogonal(2)),
    (rotation_edit("rotate_linear", "block.fc2", 2, orthogonal(3)), None, orthogonal(3)),
    (rotation_edit("rotate_module", "block", orthogonal(8)), orthogonal(8), None),
    (rotation_edit("rotate_keys", "", orthogonal(4)), orthogonal(4), None),
    (rotation_edit("rotate_output", "block.norm", 4, 2 * orthogonal(2)), None, 2 * orthogonal(2)),
]


def test_an_rms_norm_is_the_layer_norm_of_what_has_no_mean(model: nn.Module) -> None:
    centred = X - X.mean(-1, keepdim=True)
    expected = model["block"].norm(X)
    apply_edit(model, RMSNormEdit("block.norm"))
    assert isinstance(model["block"].norm, RMSNorm)
    torch.testing.assert_close(model["block"].norm(centred), expected)


def test_a_new_bias_is_zero_and_stored(model: nn.Module) -> None:
    expected = model["block"](X)
    apply_edit(model, BiasEdit("block.fc1"))
    assert torch.equal(model["block"](X), expected)
    assert "block.fc1.bias" in model.state_dict()
    model["block"].fc1.bias.fill_(1)
    apply_edit(model, BiasEdit("block.fc1"))
    assert model["block"].fc1.bias.sum() == 6, "a bias that is there stays"


def test_a_linear_rotates_its_input(model: nn.Module) -> None:
    edit, right, left = EDITS[2]
    expected = model["block"].fc1(X @ torch.kron(orthogonal(2), orthogonal(4)))
    apply_edit(model, edit, right, left)
    assert isinstance(model["block"].fc1, QuantLinear)
    torch.testing.assert_close(model["block"].fc1(X), expected)


def test_a_norm_rotates_its_output(model: nn.Module) -> None:
    edit = rotation_edit("rotate_output", "block.norm", orthogonal(4), orthogonal(2))
    expected = model["block"].norm(X) @ torch.kron(orthogonal(2), orthogonal(4))
    apply_edit(model, edit, orthogonal(4), orthogonal(2))
    torch.testing.assert_close(model["block"].norm(X), expected)


def test_a_module_rotates_its_first_argument_only(model: nn.Module) -> None:
    edit, right, _ = EDITS[4]
    expected = model["block"](X @ orthogonal(8), scale=2.0)
    apply_edit(model, edit, right)
    torch.testing.assert_close(model["block"](X, scale=2.0), expected)


def test_a_model_says_how_its_cache_rotates_keys(model: nn.Module) -> None:
    assert key_rotation(model) is None
    edit, right, _ = EDITS[5]
    apply_edit(model, edit, right)
    assert isinstance(key_rotation(model), Rotation)
    assert torch.equal(key_rotation(model)(torch.eye(4).double()), orthogonal(4))


@pytest.mark.parametrize("edit", [each[0] for each in EDITS[2:]], ids=lambda edit: f"{edit.kind}-{edit.path}")
def test_a_rotation_is_the_identity_until_it_is_loaded(model: nn.Module, edit: Edit) -> None:
    expected = model["block"](X)
    apply_edit(model, edit)
    torch.testing.assert_close(model["block"](X), expected)


def test_all_edits_survive_the_disk(model: nn.Module, tmp_path: Path) -> None:
    for edit, right, left in EDITS:
        apply_edit(model, edit, right, left)
    path = tmp_path / "model.safetensors"
    save_weights(path, {}, leftover_tensors(model, []), [each[0] for each in EDITS])
    stored = load_weights(path)
    assert list(stored.edits) == [each[0] for each in EDITS]
    fresh = nn.ModuleDict({"block": Block()}).double().eval().requires_grad_(False)
    for edit in stored.edits:
        apply_edit(fresh, edit)
    fresh.load_state_dict(stored.leftovers)
    torch.testing.assert_close(fresh["block"](X), model["block"](X), rtol=1e-2, atol=1e-2)  # float16 on the disk
    assert key_rotation(fresh) is not None


def test_edits_of_the_wrong_kind_of_module_are_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"block\.fc1 is a Linear, not a LayerNorm"):
        apply_edit(model, RMSNormEdit("block.fc1"))
    with pytest.raises(ValueError, match="a Block cannot have a bias"):
        apply_edit(model, BiasEdit("block"))
    with pytest.raises(TypeError, match=r"block\.norm is a LayerNorm"):
        apply_edit(model, RotationEdit("rotate_linear", "block.norm", 8))
