from __future__ import annotations

import pytest
import torch
from torch import nn

from src.quant.fake import fake_quantize_tokens
from src.quant.linear import QuantLinear, install


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    model = nn.ModuleDict({"block": nn.ModuleList([nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 8, bias=False)])})
    return model.eval().requires_grad_(False)


def test_weight_only_quantization_keeps_the_plain_linear(module: nn.Module) -> None:
    before, W = module.get_submodule("block.0"), torch.randn(4, 8)
    install(module, "block.0", W, 16)
    after = module.get_submodule("block.0")
    assert after is before
    assert type(after) is nn.Linear
    assert torch.equal(after.weight, W)


@pytest.mark.parametrize("path", ["block.0", "block.2"])
def test_quantized_inputs_are_rounded_before_the_product(module: nn.Module, path: str) -> None:
    plain = module.get_submodule(path)
    assert isinstance(plain, nn.Linear)
    W, x = torch.randn_like(plain.weight), torch.randn(2, 3, plain.in_features)
    install(module, path, W, 4)
    expected = nn.functional.linear(fake_quantize_tokens(x, 4), W, plain.bias)
    assert torch.equal(module.get_submodule(path)(x), expected)


def test_the_state_dict_has_the_same_names_whatever_is_quantized(module: nn.Module) -> None:
    names = list(module.state_dict())
    install(module, "block.0", None, 8)
    install(module, "block.2", torch.zeros(8, 4), 8)
    assert list(module.state_dict()) == names


def test_going_back_to_sixteen_bits_restores_the_plain_linear(module: nn.Module) -> None:
    x = torch.randn(2, 8)
    expected = module.get_submodule("block.0")(x)
    install(module, "block.0", None, 4)
    assert isinstance(module.get_submodule("block.0"), QuantLinear)
    install(module, "block.0", None, 16)
    assert type(module.get_submodule("block.0")) is nn.Linear
    assert torch.equal(module.get_submodule("block.0")(x), expected)


def test_wrong_paths_modules_and_shapes_are_refused(module: nn.Module) -> None:
    with pytest.raises(AttributeError):
        install(module, "block.7", None, 8)
    with pytest.raises(TypeError, match=r"block.1 is a LayerNorm"):
        install(module, "block.1", None, 8)
    with pytest.raises(ValueError, match=r"weight \(8, 4\) for a linear of \(4, 8\)"):
        install(module, "block.0", torch.zeros(8, 4), 16)


def test_exact_inputs_are_not_rounded_and_widen_no_grid(module: nn.Module) -> None:
    exact, x = torch.tensor([1, 6]), torch.randn(5, 8)
    x[:, 1] *= 1000
    install(module, "block.0", torch.eye(4, 8), 4, exact)
    others = torch.tensor([0, 2, 3, 4, 5, 7])
    expected = x.clone()
    expected[:, others] = fake_quantize_tokens(x[:, others], 4)
    linear = module.get_submodule("block.0")
    assert torch.equal(linear(x), nn.functional.linear(expected, torch.eye(4, 8), linear.bias))


def test_exact_inputs_are_no_part_of_the_state_dict_and_go_with_the_next_installation(module: nn.Module) -> None:
    names = list(module.state_dict())
    install(module, "block.0", None, 4, torch.tensor([0]))
    assert list(module.state_dict()) == names
    install(module, "block.0", None, 4)
    assert module.get_submodule("block.0").exact is None
