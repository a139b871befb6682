from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from calibration_rows import correlated
from outlier_block import inputs_of, outlier_block
from whole_models import bench_of

from src.calib.walk import Walker, WalkOptions
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.awq import AWQ, rounded_trial
from src.methods.build import build_method
from src.methods.parts.clip_search import clip_limits, clipped
from src.methods.parts.equalise import activation_aware_scales, gram_losses
from src.methods.parts.trial import Observation, Probe
from src.models.speech import SpeechModel
from src.quant.grid import round_to_nearest
from src.quant.loss import output_error
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

FAMILIES = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def test_the_first_candidate_is_no_scaling_and_all_are_balanced_around_one() -> None:
    candidates = activation_aware_scales(torch.rand(32) + 0.01, steps=20)
    assert len(candidates) == 20
    assert candidates[0].tolist() == [1.0] * 32
    for s in candidates:
        assert (s.max() * s.min()).item() == pytest.approx(1.0, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gram_matrix_gives_the_error_that_running_the_linear_gives(weighted: bool) -> None:
    speech, task = outlier_block(2)
    R = torch.ones(task.inputs[0].hidden.shape[:2])
    if weighted:
        R[:, 5:] = 0.2
        task.inputs[0].weights = R
    path, spec = f"{task.block.path}.fc1", WeightSpec(3, 32, False)
    bench = bench_of(speech, bits=3)
    bench.plan[path] = spec
    x = inputs_of(task, ["fc1"])["fc1"].flatten(0, 1)
    s = activation_aware_scales(x.abs().mean(0), steps=20)[10]
    trial = rounded_trial(bench, path, s)
    assert trial is not None
    observation = Observation(speech.module, task, Probe(path))
    W = speech.module.get_parameter(f"{path}.weight").detach()
    own = x * R.flatten()[:, None]
    expected = gram_losses([(W, spec)], own.T @ own, R.square().sum().item(), [s])[0]
    assert expected == pytest.approx(observation.loss({path: trial}), rel=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [-1, 16])
def test_clipping_lowers_the_error_of_every_groups_share_and_never_raises_it(bits: int, group_size: int) -> None:
    W, X = correlated(16, 64, 512, seed=1)
    H, spec = X.T @ X, WeightSpec(bits, group_size, False)
    Q = round_to_nearest(clipped(W, clip_limits(W, H, spec, 20, 0.5)), spec).dequantize()
    nearest = round_to_nearest(W, spec).dequantize()
    size = spec.columns_per_group(64)
    shares = [slice(start, start + size) for start in range(0, 64, size)]
    ours = [output_error(W[:, at], Q[:, at], H[at, at]) for at in shares]
    theirs = [output_error(W[:, at], nearest[:, at], H[at, at]) for at in shares]
    assert all(a <= b * (1 + 1e-5) for a, b in zip(ours, theirs, strict=True))
    assert sum(ours) < 0.95 * sum(theirs)


def test_limits_are_between_half_and_all_of_the_largest_weight() -> None:
    W, X = correlated(16, 64, 512, seed=2)
    limits = clip_limits(W, X.T @ X, WeightSpec(2, 16, False), 20, 0.5)
    ratio = limits / W.view(16, 4, 16).abs().amax(2)
    assert 0.5 < ratio.min() < ratio.max() <= 1.0


@FAMILIES
@pytest.mark.parametrize("objective", ["gram", "module"])
@pytest.mark.parametrize("wbits", [2, 3, 4])
def test_block_outputs_are_closer_than_rounded_to_nearest(
    build: Callable[[], SpeechModel], objective: str, wbits: int
) -> None:
    """On the clips it was calibrated with; averaged over the encoder's blocks, each on inputs of the fp model."""
    errors = {name: _block_errors(build(), name, wbits, objective) for name in ("rtn", "awq")}
    assert sum(a / b for a, b in zip(errors["awq"], errors["rtn"], strict=True)) / len(errors["rtn"]) < 0.97


def _block_errors(speech: SpeechModel, name: str, wbits: int, objective: str) -> list[float]:
    extra = () if name == "rtn" else (f"method.objective={objective}",)
    settings = composed(f"method={name}", f"wbits={wbits}", "group_size=16", "scope.decoder=false", *extra)
    calibration = noise_calibration(speech, 5)
    hidden, kwargs, valid = speech.encoder_inputs(calibration.features)
    with torch.no_grad():
        inputs, exact = [hidden], []
        for block in speech.graph.encoder:
            exact.append(speech.block(block)(inputs[-1], **kwargs))
            inputs.append(exact[-1])
        Quantizer(speech, build_method(settings.method), settings, calibration).run()
        rough = [speech.block(block)(x, **kwargs) for block, x in zip(speech.graph.encoder, inputs[:-1], strict=True)]
    return [float((a - b)[valid].square().mean()) for a, b in zip(rough, exact, strict=True)]


def test_queries_and_keys_are_not_clipped() -> None:
    bench = bench_of(tiny_whisper(), bits=3)
    method = build_method(composed("method=awq").method)
    assert isinstance(method, AWQ)
    seen: list[str] = []
    assert bench.calibration is not None
    options = WalkOptions(gram=True, targets=True)
    Walker(bench.speech, bench.calibration, options).walk(lambda task: seen.extend(method.fit_block(bench, task)))
    left = {linear.path for linear in bench.graph.linears} - set(seen)
    assert {path.rpartition(".")[2] for path in left} == {"q_proj", "k_proj"}
    assert len(left) == 2 * 2 + 4 * 2


def test_scaling_alone_needs_no_second_walk() -> None:
    method = build_method(composed("method=awq_scale").method)
    assert not method.needs.fits_blocks
    assert not method.needs.statistics
