"""Codes and outliers of SpQR against those of its authors' code, run once on the same inputs (see golden/*.json)."""

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

from src.lowbit.double_quantization import StatisticsSpec
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.outliers import SparseOutliers
from src.lowbit.pack import unpack
from src.methods.spqr import spqr
from src.quant.loss import output_error

GOLDEN = Path(__file__).parent / "golden"
PROVENANCE: dict[str, Any] = json.loads((GOLDEN / "vahe1994_spqr.json").read_text())
CASES: list[dict[str, Any]] = PROVENANCE["cases"]
BY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    made = PROVENANCE["inputs"]
    W, X = correlated(made["rows"], made["columns"], made["samples"], made["seed"])
    assert hashlib.sha256(W.numpy().tobytes()).hexdigest() == made["sha256_W"], "torch draws other numbers by this seed"
    return W, X.T @ X


@pytest.fixture(scope="module")
def packed() -> dict[str, Tensor]:
    return load_file(GOLDEN / "vahe1994_spqr.safetensors")


def run(inputs: tuple[Tensor, Tensor], case: dict[str, Any], storage: torch.dtype) -> QuantizedWeight:
    """Our weight; the authors compute with ``float32`` second-level grids, we with what is stored, ``float16``."""
    W, H = inputs
    spec = WeightSpec(case["bits"], case["group_size"], False)
    options = {"outlier_threshold": case["outlier_threshold"], "act_order": case["act_order"], "storage": storage}
    return spqr(W, H, spec, statistics=StatisticsSpec(3, 16), damp=1.0, **options).weight


def outliers_in_rounding_order(weight: QuantizedWeight) -> Tensor:
    assert weight.sparse is not None
    mask = torch.zeros(weight.shape)
    values = torch.ones_like(weight.sparse.values)
    SparseOutliers(values, weight.sparse.columns, weight.sparse.rows).write_into(mask)
    return mask.bool() if weight.perm is None else mask[:, weight.perm].bool()


def their_outliers(packed: Tensor, columns: int) -> Tensor:
    bits = packed.unsqueeze(2) >> torch.arange(8, dtype=torch.uint8) & 1
    return bits.flatten(1)[:, :columns].bool()


@BY_CASE
def test_codes_and_outliers_equal_those_of_the_authors(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor], packed: dict[str, Tensor]
) -> None:
    ours = run(inputs, case, torch.float32)
    outlier = their_outliers(packed[f"{case['name']}.mask"], ours.shape[1])
    assert (outliers_in_rounding_order(ours) == outlier).float().mean() >= 0.999
    theirs = unpack(packed[f"{case['name']}.codes"], case["bits"], ours.shape[1])
    assert (ours.codes == theirs)[~outlier].float().mean() >= 0.999
    assert output_error(inputs[0], ours.dequantize(), inputs[1]) == pytest.approx(case["loss"], rel=1e-4)


@BY_CASE
def test_second_level_grids_stored_in_float16_cost_at_most_a_few_percent(
    case: dict[str, Any], inputs: tuple[Tensor, Tensor]
) -> None:
    W, H = inputs
    ours = run(inputs, case, torch.float16)
    assert output_error(W, ours.dequantize(), H) == pytest.approx(case["loss"], rel=0.03)
    assert int(outliers_in_rounding_order(ours).sum()) == pytest.approx(case["outliers"], rel=0.05, abs=3)
