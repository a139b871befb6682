"""Codes of GPTAQ against those of its authors' code, run once on the same inputs (provenance in golden/*.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_rows import correlated
from safetensors.torch import load_file
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.pack import unpack
from src.methods.gptq import gptq

GOLDEN = Path(__file__).parent / "golden"
PROVENANCE: dict[str, Any] = json.loads((GOLDEN / "intelligent_computing_gptaq.json").read_text())
CASES: list[dict[str, Any]] = PROVENANCE["cases"]
AGREEMENT = 0.998


def asymmetric_inputs(rows: int, columns: int, samples: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """``W``, ``X`` and ``X_fp`` as the golden file says."""
    W, X = correlated(rows, columns, samples, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    noise = torch.randn(samples, columns, generator=generator)
    return W, X, X + 0.1 * (X @ mix) + 0.05 * X.std() * noise


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    made = PROVENANCE["inputs"]
    W, X, X_fp = asymmetric_inputs(made["rows"], made["columns"], made["samples"], made["seed"])
    assert hashlib.sha256(W.numpy().tobytes()).hexdigest() == made["sha256_W"], "torch draws other numbers by this seed"
    return W, X, X_fp


def run(inputs: tuple[Tensor, Tensor, Tensor], case: dict[str, Any], scale_dtype: torch.dtype) -> QuantizedWeight:
    """Our codes; ``float32`` scales are the authors' choice, ``float16`` ones are ours."""
    W, X, X_fp = inputs
    spec = WeightSpec(case["bits"], case["group_size"], symmetric=False)
    options = {"act_order": case["act_order"], "static_groups": case["group_size"] > 0, "scale_dtype": scale_dtype}
    return gptq(W, X.T @ X, spec, C=case["alpha"] * ((X_fp - X).T @ X), damp=0.01, **options).weight


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_codes_equal_those_of_the_authors(case: dict[str, Any], inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    packed = load_file(GOLDEN / "intelligent_computing_gptaq.safetensors")
    ours = run(inputs, case, torch.float32).codes
    theirs = unpack(packed[case["name"]], case["bits"], ours.shape[1])
    assert (ours == theirs).float().mean() >= AGREEMENT


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_scales_stored_in_float16_cost_at_most_a_few_percent(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    W, X, X_fp = inputs
    Q = run(inputs, case, torch.float16).dequantize()
    loss = (X.double() @ Q.double().T - X_fp.double() @ W.double().T).square().sum()
    assert float(loss) == pytest.approx(case["loss"], rel=0.03)
