from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from mlp_block import problem
from test_block_trainer import tasks
from whole_models import bench_of, double, largest_relative_error, outputs

from src.calib.task import BlockTask
from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.build import build_method
from src.methods.omniquant import OmniQuant
from src.methods.parts.block_trainer import minibatches, reconstruction_error
from src.methods.parts.learned_clip import LearnedClip
from src.methods.parts.learned_scale import fold, start_scales
from src.methods.parts.straight_through import quantized_inputs
from src.models.speech import SpeechModel
from src.quant.grid import round_to_nearest
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

FAMILIES = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def method(**changed: Any) -> OmniQuant:
    built = build_method(composed("method=omniquant").method)
    assert isinstance(built, OmniQuant)
    return replace(built, **changed)


def block_errors(
    build: Callable[[], SpeechModel], learner: Any, bits: int, abits: int
) -> tuple[list[float], list[float]]:
    """Reconstruction error of every block on full-precision inputs: learned, and rounded to nearest."""
    speech = build()
    bench = bench_of(speech, bits, abits)
    learned, nearest = [], []
    for task in tasks(speech):
        paths = [each.path for each in task.block.linears]
        spec = WeightSpec(bits, -1, False)
        weights = {path: round_to_nearest(speech.module.get_parameter(f"{path}.weight"), spec) for path in paths}
        nearest.append(_error(task, weights, abits))
        rounded = learner.fit_block(bench, task)
        learned.append(_error(task, {path: each.weight for path, each in rounded.items()}, abits))
    return learned, nearest


def _error(task: BlockTask, weights: dict[str, Any], abits: int) -> float:
    names = {path: path.removeprefix(f"{task.block.path}.") for path in weights}
    tensors = {f"{names[path]}.weight": weight.dequantize() for path, weight in weights.items()}
    with quantized_inputs(task.module, dict.fromkeys(names.values(), abits)):
        return reconstruction_error(task.module, tensors, minibatches(task, 2))


@FAMILIES
@pytest.mark.parametrize(("bits", "abits"), [(2, 16), (3, 16), (4, 16), (4, 6)])
def test_blocks_are_reconstructed_better_than_by_round_to_nearest(
    build: Callable[[], SpeechModel], bits: int, abits: int
) -> None:
    learned, nearest = block_errors(build, method(epochs=12, lwc_lr=0.03), bits, abits)
    ratios = [a / b for a, b in zip(learned, nearest, strict=True)]
    assert sum(ratios) / len(ratios) < 0.97


@FAMILIES
def test_learned_scales_and_shifts_change_nothing_in_float64(build: Callable[[], SpeechModel]) -> None:
    speech = double(build)
    before = outputs(speech)
    bench = bench_of(speech)
    for task in tasks(speech):
        scales = start_scales(bench, task, alpha=0.5, shift=True)
        assert len(scales) == (3 if task.block in speech.graph.encoder else 5)
        for each in scales:
            for parameter in each.parameters:
                parameter.detach().mul_(1 + torch.rand_like(parameter))
        fold({name: each.detach() for name, each in task.module.named_parameters()}, scales)
    assert largest_relative_error(outputs(speech), before) < 1e-10
    assert not torch.equal(outputs(speech)[0], before[0])


def test_shifts_need_a_norm_with_a_bias() -> None:
    """Whisper's k_proj gets one; Moonshine's norms have none, and get none."""
    for build, edits in ((tiny_whisper, {"bias"}), (tiny_moonshine, set())):
        speech = build()
        bench = bench_of(speech, abits=8)
        learner = method(epochs=1)
        for task in tasks(speech):
            learner.fit_block(bench, task)
        assert {edit.kind for edit in bench.edits} == edits
        assert all(edit.path.endswith("self_attn.k_proj") for edit in bench.edits)


@FAMILIES
def test_what_learned_scales_cannot_reach_is_said(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    notes = method().transform(bench_of(speech, abits=8)).notes
    assert {path.rpartition(".")[2] for path in notes} == {"fc2", "k_proj", "v_proj"}
    assert "feeds other blocks" in notes["model.decoder.layers.0.encoder_attn.k_proj"]
    assert not method().transform(bench_of(speech, abits=16)).notes
    assert not method(let=False).transform(bench_of(speech, abits=8)).notes


@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_what_is_stored_is_what_was_learned(bits: int, group_size: int, symmetric: bool) -> None:
    W = torch.randn(8, 64)
    W[0] = 0
    clip = LearnedClip(W, WeightSpec(bits, group_size, symmetric))
    for parameter in clip.parameters:
        parameter.detach().uniform_(-1, 4)
    stored = clip.quantize(W)
    assert stored.scale.dtype == torch.float16
    assert torch.equal(stored.dequantize(), clip(W).detach())
    assert torch.equal(
        LearnedClip(W, stored.spec, learn=False).quantize(W).codes, round_to_nearest(W, stored.spec).codes
    )


def test_two_runs_are_equal() -> None:
    spec = WeightSpec(3, -1, False)
    first, second = (method(epochs=2).fit_block(*problem(spec, abits=8)) for _ in range(2))
    assert all(torch.equal(first[path].weight.codes, second[path].weight.codes) for path in first)


def test_layers_out_of_scope_stay_as_they_are() -> None:
    bench, task = problem(WeightSpec(3, -1, False))
    bench.plan["block.fc1"] = None
    assert set(method(epochs=1).fit_block(bench, task)) == {"block.fc2"}
    bench.plan["block.fc2"] = None
    assert not method(epochs=1).fit_block(bench, task)


def test_learning_sees_rounded_inputs() -> None:
    spec = WeightSpec(3, -1, False)
    fit = {abits: method(let=False, epochs=2).fit_block(*problem(spec, abits)) for abits in (16, 4)}
    assert not torch.equal(fit[16]["block.fc2"].weight.scale, fit[4]["block.fc2"].weight.scale)


def test_learning_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="nothing is learned"):
        method(lwc=False, let=False)
