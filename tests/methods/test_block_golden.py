"""OmniQuant and TesseraQ against their authors' code, run once on the same block (provenance in golden/*.json)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from mlp_block import MLP, error, inputs, problem
from test_omniquant import method as omniquant
from test_tesseraq import method as tesseraq
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.methods.base import Method
from src.methods.parts.block_trainer import minibatches, train
from src.methods.parts.learned_clip import LearnedClip

GOLDEN = Path(__file__).parent / "golden"
OMNIQUANT: dict[str, Any] = json.loads((GOLDEN / "opengvlab_omniquant.json").read_text())
TESSERAQ: dict[str, Any] = json.loads((GOLDEN / "modeltc_tesseraq.json").read_text())
MARGIN = 1.02
# Where learning ends is a matter of chance, to some percent: OmniQuant's end moves by up to 3 % if its start moves by
# 1e-4. TesseraQ as shipped, with a fifth of the published steps, ends 1 to 4 % above the authors' as clips are drawn.
ALLOWED_AS_SHIPPED = 1.04


def title(case: dict[str, Any]) -> str:
    return f"w{case['bits']}g{case['group_size']}{'sym' if case['symmetric'] else ''}"


def spec_of(case: dict[str, Any]) -> WeightSpec:
    return WeightSpec(case["bits"], case["group_size"], case["symmetric"])


@pytest.fixture(autouse=True)
def _same_inputs() -> None:
    digest = hashlib.sha256(inputs()[0].numpy().tobytes()).hexdigest()
    assert digest == OMNIQUANT["inputs"]["sha256_W1"] == TESSERAQ["inputs"]["sha256_W1"], "torch draws other numbers"


def in_float32(case: dict[str, Any]) -> float:
    """The loss after learning the clipping with scales that are not rounded, which are the authors'."""
    _, task = problem(spec_of(case))
    weights = dict(task.module.named_parameters())
    clips = {name: LearnedClip(W, spec_of(case), scale_dtype=torch.float32) for name, W in weights.items()}

    def current() -> dict[str, Tensor]:
        return {name: clip(weights[name]) for name, clip in clips.items()}

    parameters = [each for clip in clips.values() for each in clip.parameters]
    train(task.module, current, minibatches(task, 1) * 20, torch.optim.AdamW(parameters, lr=0.01, weight_decay=0))
    W1, W2, X = inputs()
    with torch.no_grad():
        return float((MLP(*current().values())(X) - MLP(W1, W2)(X)).square().mean())


@pytest.mark.parametrize("case", OMNIQUANT["cases"], ids=title)
def test_learned_clipping_ends_where_the_authors_does(case: dict[str, Any]) -> None:
    """A range always holds 0 here, but not there: with small groups of 2 bits some grids differ."""
    loss = in_float32(case)
    if case["symmetric"] or (case["bits"] == 2 and case["group_size"] > 0):
        assert loss < MARGIN * case["loss"]
    else:
        assert loss == pytest.approx(case["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("cases", "learner", "margin"),
    [
        (OMNIQUANT["cases"], lambda: omniquant(batch_size=1), MARGIN),
        (TESSERAQ["cases"], tesseraq, ALLOWED_AS_SHIPPED),
        (TESSERAQ["cases"][1:4:2], lambda: replace(tesseraq(), steps=250, lr=5e-4, scale_lr=5e-4), MARGIN),
    ],
    ids=["omniquant", "tesseraq as shipped", "tesseraq as published"],
)
def test_stored_blocks_are_no_worse_than_the_authors(
    cases: list[dict[str, Any]], learner: Callable[[], Method], margin: float
) -> None:
    """Each case, and the mean of the asymmetric ones; symmetric grids have one code more here, and only gain by it."""
    ratios = []
    for case in cases:
        rounded = learner().fit_block(*problem(spec_of(case)))
        loss = error({path: each.weight for path, each in rounded.items()})
        assert loss < margin * case["loss"], title(case)
        if not case["symmetric"]:
            ratios.append(loss / case["loss"])
    assert fmean(ratios) < MARGIN
