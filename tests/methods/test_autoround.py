from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from mlp_block import error, problem
from test_omniquant import FAMILIES, block_errors
from whole_models import outputs

from src.calib.task import BlockInput, BlockTask
from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.apply import Quantizer
from src.methods.autoround import AutoRound
from src.methods.build import build_method
from src.methods.parts.block_trainer import minibatches, reconstruction_error
from src.methods.parts.signed_rounding import SignedRounding
from src.methods.workbench import Workbench
from src.models.loading import load
from src.models.speech import SpeechModel
from src.quant.grid import Range, round_to_nearest
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper
from tests.utterances import load_utterances


def method(**changed: Any) -> AutoRound:
    built = build_method(composed("method=autoround").method)
    assert isinstance(built, AutoRound)
    return replace(built, **changed)


@FAMILIES
@pytest.mark.parametrize(("bits", "abits"), [(2, 16), (3, 16), (4, 16), (4, 6)])
def test_blocks_are_reconstructed_better_than_by_round_to_nearest(
    build: Callable[[], SpeechModel], bits: int, abits: int
) -> None:
    learned, nearest = block_errors(build, method(steps=15), bits, abits)
    ratios = [a / b for a, b in zip(learned, nearest, strict=True)]
    assert max(ratios) < 1
    assert sum(ratios) / len(ratios) < 0.8


@pytest.fixture(scope="module")
def real_block() -> tuple[SpeechModel, BlockTask]:
    """The first block of Moonshine tiny and what it makes of four recorded sentences."""
    settings = composed("model=embedded_moonshine")
    speech = load(settings.model, "cpu", 0)
    clips = sorted(load_utterances(settings.calib.dataset, 0), key=lambda clip: clip.samples)[:4]
    block = speech.graph.encoder[0]
    frames = BlockInput(*speech.encoder_inputs(speech.features([clip.waveform() for clip in clips])))
    task = BlockTask(block, speech.block(block), [frames])
    task.targets = task.outputs()
    return speech, task


@pytest.mark.parametrize(("bits", "group_size"), [(2, 32), (3, -1), (4, -1)])
def test_a_real_block_on_real_speech_is_reconstructed_better(
    real_block: tuple[SpeechModel, BlockTask], bits: int, group_size: int
) -> None:
    """Than by rounding to nearest, on min-max grids and on the searched ones that learning starts from."""
    speech, task = real_block
    spec = WeightSpec(bits, group_size, False)
    weights = {
        path: speech.module.get_parameter(f"{path}.weight").detach()
        for path in (each.path for each in task.block.linears)
    }
    bench = Workbench(speech, dict.fromkeys(weights, spec), dict.fromkeys(weights, 16), 16, None, 0)

    def loss(rounded: Mapping[str, QuantizedWeight]) -> float:
        prefix = f"{task.block.path}."
        tensors = {f"{path.removeprefix(prefix)}.weight": each.dequantize() for path, each in rounded.items()}
        return reconstruction_error(task.module, tensors, minibatches(task, 4))

    learned = loss({path: each.weight for path, each in method(steps=20).fit_block(bench, task).items()})
    for search in ("minmax", "mse"):
        assert learned < 0.7 * loss({path: round_to_nearest(W, spec, search) for path, W in weights.items()})


@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_what_is_stored_is_what_was_learned(bits: int, group_size: int, symmetric: bool) -> None:
    W = torch.randn(8, 64)
    W[0] = 0
    rounding = SignedRounding(W, WeightSpec(bits, group_size, symmetric))
    rounding.V.detach().uniform_(-0.5, 0.5)
    rounding.factors.detach().uniform_(0, 1)
    stored = rounding.quantize()
    assert stored.scale.dtype == torch.float16
    assert torch.equal(stored.dequantize(), rounding().detach())


@pytest.mark.parametrize("search", ["minmax", "mse"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_it_starts_from_round_to_nearest(search: Range, symmetric: bool) -> None:
    W, spec = torch.randn(16, 64), WeightSpec(3, 16, symmetric)
    ours, expected = SignedRounding(W, spec, search).quantize(), round_to_nearest(W, spec, search)
    assert all(torch.equal(getattr(ours, name), getattr(expected, name)) for name in ("codes", "scale", "zero"))


@pytest.mark.parametrize("changed", [{}, {"clip": False}, {"range": "minmax"}, {"keep": "least_loss"}, {"lr": 0.01}])
def test_options_change_what_is_learned_and_the_seed_decides(changed: dict[str, Any]) -> None:
    spec = WeightSpec(3, -1, False)
    first, again, other = (
        method(steps=20, **changed).fit_block(*problem(spec, seed=seed))["block.fc1"].weight for seed in (0, 0, 1)
    )
    assert torch.equal(first.codes, again.codes)
    assert not torch.equal(first.codes, other.codes)
    plain = method(steps=20).fit_block(*problem(spec))["block.fc1"].weight
    assert torch.equal(first.dequantize(), plain.dequantize()) == (not changed)


def test_the_iterate_with_the_least_loss_can_be_kept() -> None:
    """With steps so large that the last one is a bad one."""
    spec = WeightSpec(3, -1, False)
    errors = {}
    for keep in ("last", "least_loss"):
        rounded = method(lr=1.0, steps=3, range="minmax", keep=keep, batch_size=16).fit_block(*problem(spec))
        errors[keep] = error({path: each.weight for path, each in rounded.items()})
    W1, W2 = (problem(spec)[0].module.get_parameter(f"block.{name}.weight") for name in ("fc1", "fc2"))
    nearest = error({"block.fc1": round_to_nearest(W1, spec), "block.fc2": round_to_nearest(W2, spec)})
    assert errors["least_loss"] <= nearest < errors["last"]


def test_layers_out_of_scope_stay_as_they_are() -> None:
    bench, task = problem(WeightSpec(3, -1, False))
    bench.plan["block.fc1"] = None
    assert set(method(steps=1).fit_block(bench, task)) == {"block.fc2"}
    bench.plan["block.fc2"] = None
    assert not method(steps=1).fit_block(bench, task)


@pytest.mark.parametrize(
    ("front", "build"), [("quarot", tiny_whisper), ("smoothquant", tiny_moonshine), ("sinq", tiny_whisper)]
)
def test_it_rounds_what_rotations_and_equalisations_prepare(build: Callable[[], SpeechModel], front: str) -> None:
    """And the model's output comes nearer to full precision's than with round-to-nearest."""

    def distance(*rounder: str) -> float:
        settings, speech = composed(f"method={front}", *rounder, "bits=w3a16"), build()
        Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2)).run()
        return float((outputs(speech)[0] - outputs(build())[0]).square().mean())

    learned = distance("method@method.rounder=autoround", "method.rounder.steps=10")
    assert learned < 0.9 * distance("method@method.rounder=rtn")


def test_a_rounder_that_learns_scales_or_starts_from_clipped_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.rounder: 'omniquant' learns scales itself"):
        build_method(composed("method=smoothquant", "method@method.rounder=omniquant").method)
    with pytest.raises(UserError, match=r"method\.clip: 'autoround' learns the grids of whole blocks"):
        build_method(composed("method=awq", "method@method.rounder=autoround").method)
    build_method(composed("method=awq_scale", "method@method.rounder=autoround").method)
