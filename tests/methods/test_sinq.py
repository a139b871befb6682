from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_rows import correlated
from torch import Tensor
from whole_models import MODELS, bench_of

from src.lowbit.granularity import WeightSpec
from src.methods.build import build_method
from src.methods.sinq import balancing_scales, shared_column_scale
from src.quant.grid import round_to_nearest
from tests.composed import composed

PROVENANCE: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "huawei_sinq.json").read_text())
OUT, IN, SEED = 48, 64, PROVENANCE["inputs"]["seed"]


@pytest.fixture(scope="module")
def weights() -> list[Tensor]:
    """Two weights with one input, their rows and columns of very different size."""
    parts = [correlated(rows, IN, 1, SEED + number)[0] for number, rows in enumerate((OUT, OUT // 2))]
    generator = torch.Generator().manual_seed(SEED + 2)
    columns = torch.exp(torch.randn(IN, generator=generator))
    rows = torch.exp(torch.randn(OUT + OUT // 2, 1, generator=generator))
    scaled = [part * row * columns for part, row in zip(parts, rows.split((OUT, OUT // 2)), strict=True)]
    first = scaled[0][0, :4]  # processors differ in the last digit of exp
    torch.testing.assert_close(
        first, torch.tensor(PROVENANCE["inputs"]["first"]), msg="torch draws other numbers by this seed"
    )
    return scaled


def spread(W: Tensor) -> float:
    """Largest over smallest standard deviation of rows and columns: the paper's imbalance."""
    both = torch.cat([W.std(0), W.std(1)])
    return float(both.max() / both.min())


@pytest.mark.parametrize("case", PROVENANCE["balancing"], ids=lambda case: f"{case['iterations']} iterations")
def test_row_and_column_scales_are_the_authors(weights: list[Tensor], case: dict[str, Any]) -> None:
    columns, rows = balancing_scales(weights[0], case["iterations"])
    torch.testing.assert_close(columns, torch.tensor(case["mu1"]))
    torch.testing.assert_close(rows, torch.tensor(case["mu2"]))


@pytest.mark.parametrize("case", PROVENANCE["links"], ids=lambda case: f"g{case['group_size']} {case['iterations']}")
def test_the_scale_that_linears_share_is_the_authors(weights: list[Tensor], case: dict[str, Any]) -> None:
    ours = shared_column_scale(weights, WeightSpec(4, case["group_size"], False), case["iterations"])
    torch.testing.assert_close(ours, torch.tensor(case["scale"]))


def test_balanced_weights_round_with_less_error(weights: list[Tensor]) -> None:
    """On inputs as training leaves them: small where the weights of their column are large."""
    W, spec = weights[0], WeightSpec(3, -1, False)
    columns, rows = balancing_scales(W, 16)
    assert spread(W / columns / rows.unsqueeze(1)) < 0.2 * spread(W)
    X = torch.randn(256, IN) / columns
    errors = [
        ((round_to_nearest(W / s, spec).dequantize() * s - W) @ X.T).square().mean() for s in (columns, torch.ones(IN))
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("dead", ["rows", "columns"])
def test_rows_and_columns_of_zeros_do_no_harm(weights: list[Tensor], dead: str) -> None:
    W = weights[0].clone()
    W[slice(3) if dead == "rows" else slice(None), slice(None) if dead == "rows" else slice(3)] = 0
    for scale in balancing_scales(W, 16):
        assert torch.isfinite(scale).all()
        assert (scale > 0).all()


@pytest.mark.parametrize("name", ["whisper-64", "moonshine-72"])
def test_no_clips_are_needed_and_scales_are_what_was_folded(name: str) -> None:
    method = build_method(composed("method=sinq", "method.passes=2").method)
    assert not method.needs.calibration
    speech, original = MODELS[name](), MODELS[name]()
    bench = bench_of(speech)
    bench.calibration = None
    scales = method.transform(bench).scales
    sources = {link.source for link in speech.graph.links}
    for link in speech.graph.links:
        if link.name in scales and link.linears[0] not in sources:
            ours, before = (each.module.get_parameter(f"{link.linears[0]}.weight") for each in (speech, original))
            torch.testing.assert_close(ours.detach(), before.detach() * scales[link.name])
