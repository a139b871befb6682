"""Products of the calibration walk against torch's own, in float64 where that decides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.calib.gram import add_lower_gram
from src.decoding import kernels
from src.models import products
from src.models.products import FastLinears, product
from tests.tiny import tiny_whisper


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_a_linear(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 200, bias=bias).requires_grad_(False)
    x = torch.randn(3, 7, 48)
    expected = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double() if bias else None)
    torch.testing.assert_close(product(x, linear.weight, linear.bias).double(), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad(), FastLinears():
        assert torch.equal(linear(x), product(x, linear.weight, linear.bias))


@pytest.mark.parametrize("columns", [5, 128, 300])
def test_the_lower_triangle_of_a_gram_matrix_is_added(columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(40, columns)
    G = torch.ones(columns, columns)
    add_lower_gram(G, x)
    expected = (x.double().T @ x.double() + 1).tril()
    torch.testing.assert_close(G.tril().double(), expected, rtol=1e-5, atol=1e-4)


def test_gradients_still_pass_through_linears() -> None:
    linear = nn.Linear(4, 2)
    with FastLinears():
        linear(torch.ones(1, 4)).sum().backward()
    assert linear.weight.grad is not None
    torch.testing.assert_close(linear.weight.grad, torch.ones(2, 4))


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_torch_in_float64(bias: bool) -> None:
    torch.manual_seed(0)
    linear, exact = nn.Linear(48, 200, bias=bias), nn.Linear(48, 200, bias=bias).double()
    exact.load_state_dict(linear.state_dict())
    x = torch.randn(3, 7, 48, requires_grad=True)
    x_exact = x.detach().double().requires_grad_()
    with FastLinears():
        linear(x).square().sum().backward()
    exact(x_exact).square().sum().backward()
    pairs = [(x, x_exact), *zip(linear.parameters(), exact.parameters(), strict=True)]
    for own, expected in pairs:
        assert own.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(own.grad.double(), expected.grad, rtol=1e-5, atol=1e-4)


def test_a_torch_with_onednn_has_its_product() -> None:
    assert torch.backends.mkldnn.is_available() == products.HAS_ONEDNN
    if products.HAS_ONEDNN:
        x, W, bias = torch.randn(3, 48), torch.randn(20, 48), torch.randn(20)
        torch.testing.assert_close(torch.ops.mkldnn._linear_pointwise(x, W, bias, "none", [], ""), x @ W.T + bias)


def test_without_it_linears_and_attention_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (products, kernels):
        monkeypatch.setattr(module, "HAS_ONEDNN", False)
    x, W, bias = torch.randn(3, 48), torch.randn(20, 48), torch.randn(20)
    assert torch.equal(product(x, W, bias), nn.functional.linear(x, W, bias))
    model = tiny_whisper().module
    with kernels.inference_kernels(model):
        assert model.config._attn_implementation == "sdpa"
        assert not any("forward" in vars(child) for child in model.modules())
