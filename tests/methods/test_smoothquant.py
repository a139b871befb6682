from __future__ import annotations

import pytest
import torch
from outlier_block import bench_for, inputs_of, outlier_block

from src.lowbit.granularity import WeightSpec
from src.methods.osplus import ShiftAndScale, trial_of
from src.methods.parts.trial import Observation, inner_probe
from src.methods.smoothquant import smoothing_scales


def test_at_one_half_activations_and_weights_end_up_equally_large() -> None:
    X, W = torch.randn(100, 16) * torch.logspace(-1, 1, 16), torch.randn(8, 16)
    s = smoothing_scales(X.abs().amax(0), [W[:3], W[3:]], alpha=0.5)
    torch.testing.assert_close((X / s).abs().amax(0), (W * s).abs().amax(0))


def test_a_channel_that_was_always_zero_is_left_alone() -> None:
    s = smoothing_scales(torch.tensor([0.0, 2.0]), [torch.tensor([[1.0, 2.0]])], alpha=0.5)
    assert s.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@torch.no_grad()
def test_outputs_of_quantized_weights_and_activations_are_closer_with_smoothing(bits: int) -> None:
    """Its objective, on a block with outlying channels: the error of attention and MLP summed over seeds."""
    smoothed = plain = 0.0
    for seed in range(4):
        speech, task = outlier_block(seed)
        bench = bench_for(speech, WeightSpec(bits, -1, False), abits=bits)
        quantize = trial_of(bench)
        for name, first in (("self_attn.qkv", "self_attn.q_proj"), ("mlp.in", "fc1")):
            link = next(link for link in speech.graph.links if link.name == f"{task.block.path}.{name}")
            x = inputs_of(task, [first])[first].flatten(0, 1)
            weights = [speech.module.get_parameter(f"{path}.weight") for path in link.linears]
            observation = Observation(speech.module, task, inner_probe(task.block, link))
            s = smoothing_scales(x.abs().amax(0), weights, alpha=0.5)
            none = torch.zeros_like(s)
            after, before = ShiftAndScale(none, s), ShiftAndScale(none, torch.ones_like(s))
            smoothed += observation.loss({path: quantize(path, after) for path in link.linears})  # type: ignore[misc]
            plain += observation.loss({path: quantize(path, before) for path in link.linears})  # type: ignore[misc]
    assert smoothed < 0.9 * plain
