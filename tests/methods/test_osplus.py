from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from outlier_block import WIDTH, bench_for, inputs_of, outlier_block
from whole_models import bench_of

from src.calib.task import BlockTask
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.osplus import OutlierSuppressionPlus, ShiftAndScale, core_probe, some_clips, trial_of
from src.methods.parts.equalise import best, limiting_scales
from src.methods.parts.fold import fold_shift
from src.methods.parts.trial import Observation
from src.methods.workbench import Workbench
from src.models.graph import Link
from src.models.speech import SpeechModel
from src.quant.link_statistics import LinkStatistics
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

FAMILIES = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def test_scales_only_touch_channels_above_the_threshold() -> None:
    candidates = limiting_scales(torch.tensor([1.0, 4.0, 9.0]), floor=1.0, steps=4, widest_step=10.0)
    assert [each.tolist() for each in candidates] == [
        pytest.approx([max(1.0, x / t) for x in (1.0, 4.0, 9.0)]) for t in (9.0, 7.0, 5.0, 3.0, 1.0)
    ]


def test_thresholds_lie_at_most_half_a_unit_apart() -> None:
    assert len(limiting_scales(torch.tensor([100.0]), floor=1.0, steps=10, widest_step=0.5)) == 201


def test_activations_below_the_floor_leave_nothing_to_search() -> None:
    (only,) = limiting_scales(torch.tensor([0.05, 0.01]), floor=0.1, steps=100, widest_step=0.5)
    assert only.tolist() == [1.0, 1.0]


@FAMILIES
@torch.no_grad()
def test_channels_are_centred(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    bench = bench_of(speech, bits=4, abits=4)
    build_method(composed("method=osplus", "method.steps=3", "method.shift=true").method).transform(bench)
    after = bench.statistics(gram=False)
    for link in speech.graph.links:
        if link.feed.value == "norm":
            low, high = after[link.name].minimum, after[link.name].maximum
            assert low is not None
            assert high is not None
            torch.testing.assert_close(low, -high, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_without_a_shift_no_bias_is_added() -> None:
    bench = bench_of(tiny_moonshine(), bits=4, abits=4)
    build_method(composed("method=osplus", "method.steps=3", "method.shift=false").method).transform(bench)
    assert not bench.edits


@pytest.mark.parametrize("abits", [16, 8])
@pytest.mark.parametrize(("offset", "extreme", "shifted"), [(5.0, 0.0, True), (0.0, 40.0, False)])
@torch.no_grad()
def test_the_search_shifts_channels_that_lie_off_zero_and_not_those_with_rare_extremes(
    abits: int, offset: float, extreme: float, shifted: bool
) -> None:
    """The middle of rare extremes is far from most values, which coarse weights would then meet at full size."""
    speech, task = outlier_block(1)
    task.module.get_parameter("self_attn_layer_norm.weight").fill_(1.0)
    task.module.get_parameter("self_attn_layer_norm.bias").fill_(offset)
    task.inputs[0].hidden[0] += extreme * torch.eye(WIDTH)
    link = speech.graph.link_of(f"{task.block.path}.self_attn.q_proj")
    x = inputs_of(task, ["self_attn.q_proj"])["self_attn.q_proj"].flatten(0, 1)
    method = build_method(composed("method=osplus", "method.steps=20").method)
    assert isinstance(method, OutlierSuppressionPlus)
    candidates = method.candidates(link, LinkStatistics(len(x), minimum=x.amin(0), maximum=x.amax(0)))
    losses = _losses(bench_for(speech, WeightSpec(2, -1, False), abits), task, link, candidates)
    assert bool(best(candidates, losses).z.any()) is shifted
    as_published = min(loss for each, loss in zip(candidates, losses, strict=True) if each.z.any())
    assert (as_published < losses[0]) is shifted  # losses[0]: neither shift nor scale


def _losses(bench: Workbench, task: BlockTask, link: Link, candidates: Iterable[ShiftAndScale]) -> list[float]:
    observation, quantize = Observation(bench.module, task, core_probe(task.block, link)), trial_of(bench)
    losses = []
    for each in candidates:
        trials = {path: quantize(path, each) for path in link.linears}
        losses.append(observation.loss({path: trial for path, trial in trials.items() if trial}))
    return losses


@pytest.mark.parametrize(("abits", "rel"), [(16, 1e-4), (8, 1e-2)])  # inputs at a tie may be rounded otherwise
@torch.no_grad()
def test_a_shift_is_judged_as_what_it_becomes(abits: int, rel: float) -> None:
    speech, task = outlier_block(1)
    link = speech.graph.link_of(f"{task.block.path}.self_attn.q_proj")
    bench = bench_for(speech, WeightSpec(3, -1, False), abits)
    generator = torch.Generator().manual_seed(0)
    z, s = 3 * torch.randn(WIDTH, generator=generator), 1 + torch.rand(WIDTH, generator=generator)
    tried, without = _losses(bench, task, link, [ShiftAndScale(z, s), ShiftAndScale(torch.zeros(WIDTH), s)])
    assert abs(tried / without - 1) > 0.1
    fold_shift(bench, link, z)
    assert _losses(bench, task, link, [ShiftAndScale(torch.zeros(WIDTH), s)]) == [pytest.approx(tried, rel=rel)]


@FAMILIES
@pytest.mark.parametrize(("wbits", "abits"), [(2, 8), (3, 6), (4, 4), (6, 6)])
def test_block_outputs_are_closer_than_without_equalisation(
    build: Callable[[], SpeechModel], wbits: int, abits: int
) -> None:
    """Where channels are uneven; averaged over the encoder's blocks, each on inputs of the fp model."""
    nearest = _block_errors(_uneven(build()), "method=rtn", wbits, abits)
    ours = _block_errors(_uneven(build()), "method=osplus method.steps=20", wbits, abits)
    assert sum(a / b for a, b in zip(ours, nearest, strict=True)) / len(nearest) < 0.9


@torch.no_grad()
def _block_errors(speech: SpeechModel, method: str, wbits: int, abits: int) -> list[float]:
    settings, calibration = composed(*method.split(), f"wbits={wbits}", f"abits={abits}"), noise_calibration(speech, 5)
    hidden, kwargs, valid = speech.encoder_inputs(calibration.features)
    inputs, exact = [hidden], []
    for block in speech.graph.encoder:
        exact.append(speech.block(block)(inputs[-1], **kwargs))
        inputs.append(exact[-1])
    Quantizer(speech, build_method(settings.method), settings, calibration).run()
    rough = [speech.block(block)(x, **kwargs) for block, x in zip(speech.graph.encoder, inputs[:-1], strict=True)]
    return [float((a - b)[valid].square().mean()) for a, b in zip(rough, exact, strict=True)]


def _uneven(speech: SpeechModel) -> SpeechModel:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for link in speech.graph.links:
            if link.feed.value == "norm":
                weight = speech.module.get_parameter(f"{link.source}.weight")
                spread = torch.randn(len(weight), generator=generator).exp()
                weight.mul_(spread)
                for path in link.linears:
                    speech.module.get_parameter(f"{path}.weight").div_(spread)
    return speech


def test_the_attention_is_judged_before_its_output_projection() -> None:
    speech, task = outlier_block(0)
    link = speech.graph.link_of(f"{task.block.path}.self_attn.q_proj")
    assert core_probe(task.block, link).inside == f"{task.block.path}.self_attn.out_proj"
    alone = speech.graph.link_of(f"{task.block.path}.fc1")
    assert core_probe(task.block, alone).module == f"{task.block.path}.fc1"
    assert core_probe(task.block, alone).inside is None


@pytest.mark.parametrize(("clips", "chosen"), [(1, ["clip2"]), (2, ["clip1", "clip3"]), (5, None), (9, None)])
def test_the_search_uses_clips_of_all_lengths(clips: int, chosen: list[str] | None) -> None:
    calibration = noise_calibration(tiny_whisper(), 2)
    assert some_clips(calibration, clips).ids == (chosen or calibration.ids)
