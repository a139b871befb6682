"""SmoothQuant against its authors' code, run once on the same block (provenance in golden/*.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outlier_block import inputs_of, outlier_block, sha256_drawn

from src.methods.parts.fold import fold_scale
from src.methods.smoothquant import smoothing_scales

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/mit_han_lab_smoothquant.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['link']}-{case['alpha']}")
def test_smoothed_norms_and_weights_are_those_of_the_authors(case: dict[str, Any]) -> None:
    made = GOLDEN["inputs"]
    assert sha256_drawn(made["seed"]) == made["sha256_drawn"], "torch draws other numbers by this seed"
    speech, task = outlier_block(made["seed"])
    link = next(link for link in speech.graph.links if link.name == f"{task.block.path}.{case['link']}")
    first = link.linears[0]
    x = inputs_of(task, [first.removeprefix(f"{task.block.path}.")]).popitem()[1]
    weights = [speech.module.get_parameter(f"{path}.weight") for path in link.linears]
    fold_scale(speech.module, link, smoothing_scales(x.abs().flatten(0, 1).amax(0), weights, case["alpha"]))
    norm = speech.module.get_submodule(link.source)
    for ours, name in (
        (norm.weight, "norm_weight"),
        (norm.bias, "norm_bias"),
        (torch.cat(weights).abs().amax(0), "linear_column_max"),
    ):
        torch.testing.assert_close(ours.detach(), torch.tensor(case[name]), rtol=1e-5, atol=0)
