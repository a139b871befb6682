"""Codes of GPTQ against those of its authors' code, run once on the same inputs (provenance in golden/*.json)."""

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

from src.methods.gptq import gptq
from src.quant.granularity import QuantizedWeight, WeightSpec
from src.quant.loss import output_error
from src.quant.pack import unpack

GOLDEN = Path(__file__).parent / "golden"
PROVENANCE: dict[str, Any] = json.loads((GOLDEN / "ist_daslab_gptq.json").read_text())
CASES: list[dict[str, Any]] = PROVENANCE["cases"]

# In a symmetric group -max |w| lies half-way between two codes. Where the group was fitted to compensated weights, the
# last bit of that compensation breaks the tie, and the rest of the row follows. A row of 64 columns is 1/96 of a case.
TIED_CASE_AGREEMENT = 0.985
AGREEMENT = 0.999


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    made = PROVENANCE["inputs"]
    W, X = correlated(made["rows"], made["columns"], made["samples"], made["seed"])
    assert hashlib.sha256(W.numpy().tobytes()).hexdigest() == made["sha256_W"], "torch draws other numbers by this seed"
    return W, X.T @ X


@pytest.fixture(scope="module")
def packed() -> dict[str, Tensor]:
    return load_file(GOLDEN / "ist_daslab_gptq.safetensors")


def run(inputs: tuple[Tensor, Tensor], case: dict[str, Any], scale_dtype: torch.dtype) -> QuantizedWeight:
    """Our codes; ``float32`` scales are the authors' choice, ``float16`` ones are ours."""
    W, H = inputs
    spec = WeightSpec(case["bits"], case["group_size"], case["symmetric"])
    options = {key: case[key] for key in ("act_order", "static_groups", "search", "block_size")}
    return gptq(W, H, spec, damp=0.01, scale_dtype=scale_dtype, **options).weight


def agreement(inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor], case: dict[str, Any]) -> float:
    """Share of codes that equal the authors'."""
    ours = run(inputs, case, torch.float32)
    codes = ours.codes if ours.perm is None else ours.codes[:, torch.argsort(ours.perm)]
    theirs = unpack(packed[case["name"]], case["bits"], codes.shape[1])
    return (codes == theirs).float().mean().item()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_codes_equal_those_of_the_authors(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor]
) -> None:
    tied = case["symmetric"] and case["group_size"] > 0 and not case["static_groups"]
    assert agreement(inputs, packed, case) >= (TIED_CASE_AGREEMENT if tied else AGREEMENT)


def test_over_all_cases_999_of_1000_codes_are_equal(inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor]) -> None:
    shares = [agreement(inputs, packed, case) for case in CASES]
    assert sum(shares) / len(shares) >= AGREEMENT


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_scales_stored_in_float16_cost_at_most_a_few_percent(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor]
) -> None:
    W, H = inputs
    ours = output_error(W, run(inputs, case, torch.float16).dequantize(), H)
    assert ours == pytest.approx(case["loss"], rel=0.03)
