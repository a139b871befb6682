"""AWQ against its authors' code, run once on the same block (provenance in golden/*.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outlier_block import bench_for, inputs_of, outlier_block, sha256_drawn

from src.lowbit.granularity import WeightSpec
from src.methods.awq import rounded_trial
from src.methods.parts.clip_search import clip_limits
from src.methods.parts.equalise import activation_aware_scales, best, scaled_and_rounded
from src.methods.parts.trial import Observation, inner_probe

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/mit_han_lab_awq.json").read_text())
SEED = GOLDEN["inputs"]["seed"]


@pytest.mark.parametrize(
    "case", GOLDEN["scale_cases"], ids=lambda case: f"{case['link']}-{case['bits']}-{case['group_size']}"
)
@torch.no_grad()
def test_scales_and_all_losses_of_the_search_are_those_of_the_authors(case: dict[str, Any]) -> None:
    assert sha256_drawn(SEED) == GOLDEN["inputs"]["sha256_drawn"], "torch draws other numbers by this seed"
    speech, task = outlier_block(SEED)
    link = next(link for link in speech.graph.links if link.name == f"{task.block.path}.{case['link']}")
    bench = bench_for(speech, WeightSpec(case["bits"], case["group_size"], False))
    x = inputs_of(task, [link.linears[0].removeprefix(f"{task.block.path}.")]).popitem()[1].flatten(0, 1)
    candidates = activation_aware_scales(x.abs().mean(0), steps=20)
    observation = Observation(bench.module, task, inner_probe(task.block, link))
    outputs = 128 if case["link"] == "mlp.in" else 64  # theirs is a mean over them
    losses = []
    for s in candidates:
        trials = {path: rounded_trial(bench, path, s, torch.float32) for path in link.linears}
        losses.append(observation.loss({path: trial for path, trial in trials.items() if trial}) / outputs)
    assert losses == pytest.approx(case["losses"], rel=1e-4)
    torch.testing.assert_close(best(candidates, losses), torch.tensor(case["scales"]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "case", GOLDEN["clip_cases"], ids=lambda case: f"{case['linear']}-{case['bits']}-{case['group_size']}"
)
@torch.no_grad()
def test_clipping_limits_from_the_gram_matrix_are_those_of_the_authors_from_all_rows(case: dict[str, Any]) -> None:
    _, task = outlier_block(SEED)
    W = task.module.get_parameter(f"{case['linear']}.weight").detach()
    x = inputs_of(task, [case["linear"]]).popitem()[1].flatten(0, 1)
    spec = WeightSpec(case["bits"], case["group_size"], False)
    limits = clip_limits(W, x.T @ x, spec, steps=20, max_shrink=0.5, scale_dtype=torch.float32)
    theirs = torch.tensor(case["limits"]).view_as(limits)
    assert torch.isclose(limits, theirs, rtol=1e-4).float().mean() >= 0.99  # steps with almost equal errors


@torch.no_grad()
def test_scales_stored_in_float16_choose_nearly_as_well() -> None:
    _, task = outlier_block(SEED)
    W = task.module.get_parameter("fc1.weight").detach()
    spec, s = WeightSpec(4, 32, False), torch.rand(W.shape[1]) + 0.5
    exact, stored = (scaled_and_rounded(W, s, spec, dtype) for dtype in (torch.float32, torch.float16))
    assert (stored - W).norm() == pytest.approx((exact - W).norm().item(), rel=0.01)
