"""Codes, columns and outputs of QUIK against those of its authors' code, run once on the same inputs (golden/)."""

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

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.pack import unpack
from src.methods.quik import quik
from src.quant.linear import install
from src.quant.loss import output_error

GOLDEN = Path(__file__).parent / "golden"
PROVENANCE: dict[str, Any] = json.loads((GOLDEN / "ist_daslab_quik.json").read_text())
CASES: list[dict[str, Any]] = PROVENANCE["cases"]


def by_case(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: str(case["name"]))


# The authors' symmetric grid has steps of max|w| / 7 at 4 bits, ours of 2 max|w| / 15: only errors can be compared.
ASYMMETRIC = by_case([case for case in CASES if not case["symmetric"]])
ALL = by_case(CASES)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    made = PROVENANCE["inputs"]
    W, X = correlated(made["rows"], made["columns"], made["samples"], made["seed"])
    assert hashlib.sha256(W.numpy().tobytes()).hexdigest() == made["sha256_W"], "torch draws other numbers by this seed"
    return W, X


@pytest.fixture(scope="module")
def packed() -> dict[str, Tensor]:
    return load_file(GOLDEN / "ist_daslab_quik.safetensors")


def run(inputs: tuple[Tensor, Tensor], case: dict[str, Any], storage: torch.dtype) -> QuantizedWeight:
    """Our weight; ``float32`` scales and columns are the authors' choice here, ``float16`` ones are ours."""
    W, X = inputs
    spec = WeightSpec(case["bits"], -1, case["symmetric"])
    options = {"outliers": case["outliers"], "search": case["search"], "storage": storage}
    return quik(W, X.T @ X, X.abs().amax(0), spec, damp=0.01, **options).weight


@ASYMMETRIC
def test_codes_equal_those_of_the_authors(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor]
) -> None:
    ours = run(inputs, case, torch.float32)
    theirs = unpack(packed[f"{case['name']}.codes"], case["bits"], ours.shape[1])
    assert (ours.codes == theirs).float().mean() >= 0.999


@ALL
def test_the_same_columns_stay_at_sixteen_bits(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor]
) -> None:
    dense = run(inputs, case, torch.float16).dense
    assert dense is not None
    assert torch.equal(dense.columns, packed[f"{case['name']}.columns"])


@ASYMMETRIC
def test_outputs_on_quantized_inputs_equal_those_of_the_authors(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor]
) -> None:
    weight = run(inputs, case, torch.float32)
    model = nn.ModuleDict({"linear": nn.Linear(weight.shape[1], weight.shape[0], bias=False)})
    install(model, "linear", weight.dequantize(), case["bits"], weight.exact_inputs)
    with torch.no_grad():
        torch.testing.assert_close(model["linear"](inputs[1][:4]), packed[f"{case['name']}.outputs"])


@ALL
def test_losses_equal_those_of_the_authors(case: dict[str, Any], inputs: tuple[Tensor, Tensor]) -> None:
    W, X = inputs
    loss = output_error(W, run(inputs, case, torch.float32).dequantize(), X.T @ X)
    if case["symmetric"]:
        assert loss < 1.05 * case["loss"]
    else:
        assert loss == pytest.approx(case["loss"], rel=1e-4)


@ASYMMETRIC
def test_scales_stored_in_float16_cost_at_most_a_few_percent(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor]
) -> None:
    W, X = inputs
    ours = output_error(W, run(inputs, case, torch.float16).dequantize(), X.T @ X)
    assert ours == pytest.approx(case["loss"], rel=0.03)
