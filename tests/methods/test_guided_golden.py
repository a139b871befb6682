"""Saliencies, Gram matrices and codes of GuidedQuant against its authors' code (provenance in golden/*.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_rows import correlated
from safetensors.torch import load_file
from torch import Tensor, nn

from src.calib.running_statistics import About, RunningStatistics
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.pack import unpack
from src.methods.gptq import gptq
from src.methods.parts.end_loss import listener, mean_squares
from src.models.graph import Component, Linear
from src.quant.link_statistics import LinkStatistics

GOLDEN = Path(__file__).parent / "golden"
PROVENANCE: dict[str, Any] = json.loads((GOLDEN / "snu_mllab_guidedquant.json").read_text())
THEIRS = load_file(GOLDEN / "snu_mllab_guidedquant.safetensors")
MADE = PROVENANCE["inputs"]
AGREEMENT = 0.998
SCALE = 1e6  # of the authors' squared gradients


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """``W``, ``X`` and gradients of outputs [rows, out]."""
    W, X = correlated(MADE["rows"], MADE["columns"], MADE["samples"], MADE["seed"])
    assert hashlib.sha256(W.numpy().tobytes()).hexdigest() == MADE["sha256_W"], "torch draws other numbers by this seed"
    of_rows, of_all = (torch.Generator().manual_seed(MADE["seed"] + more) for more in (2, 1))
    gradients = torch.randn(MADE["samples"], MADE["rows"], generator=of_all)
    return W, X, 1e-4 * gradients * torch.exp(1.5 * torch.randn(MADE["samples"], 1, generator=of_rows))


def statistics(X: Tensor, gradients: Tensor) -> LinkStatistics:
    """As the walk collects them, in two parts."""
    saliency = mean_squares(gradients, MADE["groups"]) * SCALE
    running = RunningStatistics(X.shape[1], gram=True, device=X.device)
    for part in (slice(0, 300), slice(300, None)):
        running.update(X[part], About(outputs={"here": saliency[:, part].bfloat16()}))
    linear = Linear("here", Component.ENCODER, MADE["rows"], MADE["columns"])
    return running.finish().of(linear)


def test_saliencies_equal_those_of_the_authors(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    found = mean_squares(inputs[2], MADE["groups"])[:, :16] * SCALE
    torch.testing.assert_close(found, THEIRS["saliency"].float(), rtol=5e-3, atol=0.0)  # theirs are bfloat16


def test_gram_matrices_equal_those_of_the_authors(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    found = [each.gram for each in statistics(*inputs[1:]).groups()]
    assert len(found) == MADE["groups"]
    for ours, theirs in zip(found, THEIRS["H"], strict=True):
        torch.testing.assert_close(ours[:8, :8], theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("case", PROVENANCE["cases"], ids=lambda case: str(case["name"]))
def test_codes_equal_those_of_the_authors(case: dict[str, Any], inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Float32 scales are the authors' choice, float16 ones are ours."""
    W, X, gradients = inputs
    groups, spec = statistics(X, gradients).groups(), WeightSpec(case["bits"], -1, symmetric=True)
    options = {"act_order": case["act_order"], "static_groups": True}
    for dtype in (torch.float32, torch.float16):
        parts = [
            gptq(rows, each.gram, spec, scale_dtype=dtype, **options).weight
            for rows, each in zip(W.tensor_split(len(groups)), groups, strict=True)
        ]
        joined = QuantizedWeight.joined(parts)
        error = (joined.dequantize() - W).double().tensor_split(len(groups))
        loss = sum(float((d @ each.gram.double() @ d.T).trace()) for d, each in zip(error, groups, strict=True))
        assert loss == pytest.approx(case["loss"], rel=0.03)
        if dtype == torch.float32:
            theirs = unpack(THEIRS[case["name"]], case["bits"], MADE["columns"])
            assert (joined.codes == theirs).float().mean() >= AGREEMENT


def test_gradients_are_of_outputs_and_leave_none_in_parameters() -> None:
    """The hook of a linear sees ``dL/dz``, once a pass."""
    linear, kept = nn.Linear(6, 8), []
    linear.register_forward_hook(listener(4, kept))
    x = torch.randn(1, 5, 6, requires_grad=True)
    targets = torch.randn(1, 5, 8)
    (0.5 * (linear(x) - targets).square().sum()).backward()
    expected = (linear(x) - targets).detach()[0].square().view(5, 4, 2).mean(2).T
    torch.testing.assert_close(kept[0].float(), expected, rtol=5e-3, atol=1e-5)
