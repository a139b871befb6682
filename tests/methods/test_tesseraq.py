from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from mlp_block import error, problem
from test_omniquant import FAMILIES, block_errors

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.build import build_method
from src.methods.parts.adaptive_rounding import AdaptiveRounding, inverse_rectified_sigmoid, rectified_sigmoid
from src.methods.tesseraq import TesseraQ
from src.models.speech import SpeechModel
from src.quant.grid import round_to_nearest
from src.quant.link_statistics import LinkStatistics
from tests.composed import composed


def method(*overrides: str, **changed: Any) -> TesseraQ:
    built = build_method(composed("method=tesseraq", *(overrides or ("method@method.start=rtn",))).method)
    assert isinstance(built, TesseraQ)
    return replace(built, **changed)


@FAMILIES
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_blocks_are_reconstructed_better_than_by_round_to_nearest(build: Callable[[], SpeechModel], bits: int) -> None:
    quick = method(thresholds=(0.5, 0.25, 0.05), steps=15, lr=0.03, scale_lr=0.01)
    learned, nearest = block_errors(build, quick, bits, 16)
    ratios = [a / b for a, b in zip(learned, nearest, strict=True)]
    assert sum(ratios) / len(ratios) < 0.9


@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_it_starts_at_the_weight_and_ends_on_the_grid(bits: int, group_size: int, symmetric: bool) -> None:
    W = torch.randn(8, 64)
    W[0] = 0
    start = round_to_nearest(W, WeightSpec(bits, group_size, symmetric))
    rounding = AdaptiveRounding(W, start, tune_scale=True)
    inside = (start.codes > 0) & (start.codes < start.spec.max_code)
    torch.testing.assert_close(rounding().detach()[inside], W[inside], rtol=0, atol=1e-5)
    rounding.nu.detach().add_(torch.randn_like(rounding.nu))
    rounding.harden(0.0)
    stored = rounding.quantize()
    assert torch.equal(stored.dequantize(), rounding().detach())
    assert torch.equal(stored.zero, start.zero)
    assert (stored.codes.int() - start.codes.int()).abs().max() <= 1


def test_hardening_leaves_the_stated_share_free_and_is_final() -> None:
    W = torch.randn(16, 64)
    rounding = AdaptiveRounding(W, round_to_nearest(W, WeightSpec(3, -1, False)), tune_scale=False)
    for share in (0.75, 0.25, 0.05):
        rounding.harden(share)
        free = rounding.nu.detach().abs() < 100
        assert float(free.float().mean()) == pytest.approx(share, abs=0.01)
        (rounding() ** 2).sum().backward()  # type: ignore[no-untyped-call]
        assert rounding.nu.grad is not None
        assert not rounding.nu.grad[~free].any()
        assert rounding.nu.grad[free].any()
        rounding.nu.grad = None


def test_the_rectified_sigmoid_and_its_inverse() -> None:
    y = torch.linspace(0, 1, 11)
    torch.testing.assert_close(rectified_sigmoid(inverse_rectified_sigmoid(y)), y)


@pytest.mark.parametrize("start", ["omniquant", "rtn_mse", "gptq"])
def test_any_method_with_plain_grids_may_be_the_start(start: str) -> None:
    spec = WeightSpec(3, 16, False)
    bench, task = problem(spec)
    rows = torch.cat([each.hidden.flatten(0, 1) for each in task.inputs])
    hidden = torch.nn.functional.gelu(rows @ bench.module.get_parameter("block.fc1.weight").T)
    for link, x in zip(bench.graph.links, (rows, hidden), strict=True):
        task.statistics[link.name] = LinkStatistics(len(x), gram=x.T @ x)
    learner = method(f"method@method.start={start}", steps=20)
    learned = learner.fit_block(bench, task)
    nearest = {path: round_to_nearest(bench.module.get_parameter(f"{path}.weight"), spec) for path in learned}
    assert error({path: each.weight for path, each in learned.items()}) < 0.5 * error(nearest)
    assert learner.needs.statistics == learner.start.needs.statistics


def test_a_start_with_an_order_of_its_own_is_an_error() -> None:
    bench, task = problem(WeightSpec(3, 16, False))
    for link, columns in zip(bench.graph.links, (32, 64), strict=True):
        task.statistics[link.name] = LinkStatistics(9, gram=torch.eye(columns))
    learner = method("method@method.start=gptq", "method.start.static_groups=false")
    with pytest.raises(UserError, match=r"method\.start: gptq does not store block\.fc1 as codes on plain grids"):
        learner.fit_block(bench, task)


def test_the_seed_decides() -> None:
    spec = WeightSpec(3, -1, False)
    codes = [method(steps=5).fit_block(*problem(spec, seed=seed))["block.fc1"].weight.codes for seed in (0, 0, 1)]
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])
