"""HQQ against its authors' code, run once on the same weights (provenance in golden/*.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_rows import correlated
from torch import Tensor

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.hqq import hqq

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/mobius_hqq.json").read_text())
LAST_SOLVER = [case for case in GOLDEN["cases"] if case["solver"] == "v2"]
OLD_DEFAULT = [case for case in GOLDEN["cases"] if case["solver"] == "annealed_default"]


def weight(heavy: bool) -> Tensor:
    """The weight of a case; a heavy tail makes the shrinkage step matter."""
    made = GOLDEN["inputs"]
    W, _ = correlated(made["rows"], made["columns"], 1, made["seed"])
    assert hashlib.sha256(W.numpy().tobytes()).hexdigest() == made["sha256"], "torch draws other numbers by this seed"
    tail = torch.randn(W.shape, generator=torch.Generator().manual_seed(made["seed"])).exp()
    return W * tail if heavy else W


def solve(case: dict[str, Any], stored: torch.dtype) -> tuple[QuantizedWeight, Tensor]:
    W, spec = weight(case["heavy"]), WeightSpec(case["bits"], case["group_size"], False)
    found = hqq(W, spec, lp_norm=0.7, beta=10.0, kappa=1.01, iterations=20, stored=stored)
    return found, (found.dequantize() - W).abs()


def name(case: dict[str, Any]) -> str:
    return f"w{case['bits']}-{case['group_size']}-{'heavy' if case['heavy'] else 'normal'}"


@pytest.mark.parametrize("case", LAST_SOLVER, ids=name)
def test_zero_points_and_errors_are_those_of_the_authors(case: dict[str, Any]) -> None:
    found, error = solve(case, torch.float32)
    equal = torch.isclose(found.zero.flatten(), torch.tensor(case["zero"]), rtol=1e-4, atol=1e-5)
    assert equal.float().mean() >= 0.97  # of 48 groups, one holds a weight half-way between two codes
    assert float(error.mean()) == pytest.approx(case["mean_error"], rel=1e-4)
    assert float(error.pow(0.7).mean()) == pytest.approx(case["lp_error"], rel=1e-4)


@pytest.mark.parametrize("case", OLD_DEFAULT, ids=name)
def test_errors_are_no_larger_than_with_the_authors_former_default(case: dict[str, Any]) -> None:
    """Which kept the zero points of its last step even where these were worse than those before."""
    _, error = solve(case, torch.float32)
    assert float(error.mean()) <= case["mean_error"] * (1 + 1e-4)


@pytest.mark.parametrize("case", LAST_SOLVER, ids=name)
def test_storing_scales_and_zero_points_in_float16_costs_at_most_a_percent(case: dict[str, Any]) -> None:
    found, error = solve(case, torch.float16)
    assert found.scale.dtype == found.zero.dtype == torch.float16
    assert float(error.pow(0.7).mean()) <= case["lp_error"] * 1.01
