"""GuidedQuant: what rows count by, that encoders hear of it, and what it composes with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from src.calib.task import BlockTask
from src.calib.walk import Walker, WalkOptions
from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.guided import mixed
from src.methods.parts.end_loss import end_loss, output_saliencies
from src.models.speech import SpeechModel
from src.quant.link_statistics import LinkStatistics
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
Build = Callable[[], SpeechModel]


def quantized(build: Build, *overrides: str) -> Quantizer:
    speech, settings = build(), composed("bits=w3a16", *overrides)
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


@BUILDERS
def test_the_loss_is_that_of_the_whole_model(build: Build) -> None:
    speech = build()
    calibration = noise_calibration(speech, 2)
    features, tokens = calibration.features[1], calibration.tokens[1]
    logits = speech.forward_tokens(torch.tensor([tokens]), speech.encode([features]))[0].double()
    behind = logits[len(speech.prompt) - 1 :].log_softmax(-1)
    expected = -behind[torch.arange(len(behind)), torch.tensor([*tokens[len(speech.prompt) :], speech.eos])].sum()
    torch.testing.assert_close(end_loss(speech, features, tokens).double(), expected, rtol=1e-4, atol=1e-4)


@BUILDERS
def test_saliencies_are_squared_effects_of_outputs_on_the_loss(build: Build) -> None:
    """Of an encoder linear, which the loss knows by the cross-attention alone; by finite differences in float64."""
    speech = build()
    calibration = noise_calibration(speech, 2)
    path = speech.graph.encoder[0].linears[-1].path
    groups, clip, channels = 4, 3, speech.graph.encoder[0].linears[-1].out_features
    found = output_saliencies(speech, calibration, [path], groups, by_clip=False)[path]
    speech.cast(torch.float64)
    module, row = speech.module.get_submodule(path), int(found[clip].float()[0].argmax())
    bump = torch.zeros(channels, dtype=torch.float64)

    def moved(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return torch.cat([output[:, :row], output[:, row : row + 1] + bump, output[:, row + 1 :]], dim=1)

    handle = module.register_forward_hook(moved)
    features = [each.double() if each.is_floating_point() else each for each in calibration.features]
    gradient = torch.zeros(channels, dtype=torch.float64)
    for channel in range(channels):
        sides = []
        for step in (1e-4, -1e-4):
            bump.zero_()[channel] = step
            sides.append(float(end_loss(speech, features[clip], calibration.tokens[clip]).detach()))
        gradient[channel] = (sides[0] - sides[1]) / 2e-4
    handle.remove()
    expected = gradient.square().view(groups, -1).mean(1)
    ratios = found[clip].double()[:, row] / expected  # each group is divided by its own mean over all rows
    raw = _raw(build(), path, groups)
    means = torch.cat(raw, dim=1).double().mean(1)
    torch.testing.assert_close(ratios * means, torch.ones(groups, dtype=torch.float64), rtol=2e-2, atol=0)


def _raw(speech: SpeechModel, path: str, groups: int) -> list[Tensor]:
    """Mean squared gradients before they are normalised, by autograd over the whole model."""
    calibration, found = noise_calibration(speech, 2), []
    module = speech.module.get_submodule(path)
    kept: list[Tensor] = []
    module.register_forward_hook(lambda _m, _i, output: kept.append(output))
    for features, tokens in zip(calibration.features, calibration.tokens, strict=True):
        (gradient,) = torch.autograd.grad(end_loss(speech, features, tokens), kept.pop())
        found.append(gradient[0].square().view(len(gradient[0]), groups, -1).mean(2).T)
    return found


@BUILDERS
def test_every_linear_has_gradients_and_a_mean_of_one(build: Build) -> None:
    speech = build()
    calibration = noise_calibration(speech, 2)
    paths = [linear.path for linear in speech.graph.linears]
    found = output_saliencies(speech, calibration, paths, 4, by_clip=False)
    assert list(found) == paths
    for path, clips in found.items():
        rows = torch.cat(clips, dim=1).float()
        torch.testing.assert_close(rows.mean(1), torch.ones(4), rtol=2e-2, atol=0, msg=path)
        assert (rows.std(1) > 0.05).all(), path
        assert all(each.dtype == torch.bfloat16 for each in clips)
    assert not any(each.requires_grad or each.grad is not None for each in speech.module.parameters())


def test_what_half_of_the_window_holds_is_heard_in_it() -> None:
    """Rows of the other half count nothing; rows of the decoder stay as many as they are."""
    speech = tiny_whisper()
    calibration = noise_calibration(speech, 2)
    encoder, decoder = (blocks[0].linears[0].path for blocks in (speech.graph.encoder, speech.graph.decoder))
    whole, half = (
        output_saliencies(speech, calibration, [encoder, decoder], 2, by_clip=by_clip) for by_clip in (False, True)
    )
    fits = [speech.fits_half(round(seconds * speech.sampling_rate)) for seconds in calibration.seconds]
    for clip, halved in enumerate(fits):
        rows = whole[encoder][clip].shape[1]
        assert half[encoder][clip].shape == whole[encoder][clip].shape
        assert bool(half[encoder][clip][:, rows // 2 :].any()) != halved
        assert half[decoder][clip].shape == whole[decoder][clip].shape


@BUILDERS
@pytest.mark.parametrize("link_by_link", [False, True])
def test_each_group_has_the_gram_matrix_of_its_weighted_rows(build: Build, link_by_link: bool) -> None:
    speech = build()
    calibration = noise_calibration(speech, 2)
    paths = [linear.path for linear in speech.graph.linears]
    shares = output_saliencies(speech, calibration, paths, 2, by_clip=False)
    seen: dict[str, LinkStatistics] = {}

    def on_block(task: BlockTask) -> None:
        for linear in task.block.linears:
            seen[linear.path] = task.statistics[speech.graph.link_of(linear.path).name].of(linear)

    options = WalkOptions(gram=True, refresh=True, cross=True, link_by_link=link_by_link)
    Walker(speech, calibration, options, outputs=shares).walk(on_block)
    inputs = _inputs(build())
    for path in paths:
        X, s = inputs[path], torch.cat(shares[path], dim=1).float()
        for group, own in enumerate(seen[path].groups()):
            expected = X.T @ (X * s[group][:, None])
            assert own.gram is not None
            assert own.cross_gram is not None
            assert (own.gram - expected).norm() < 2e-3 * expected.norm(), path
            assert not own.cross_gram.any()
        torch.testing.assert_close(seen[path].gram, X.T @ X, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def _inputs(speech: SpeechModel) -> dict[str, Tensor]:
    """Inputs [rows, in] of every linear, clip by clip."""
    seen: dict[str, list[Tensor]] = {}
    for linear in speech.graph.linears:

        def record(_: object, inputs: tuple[Tensor, ...], path: str = linear.path) -> None:
            seen.setdefault(path, []).append(inputs[0].flatten(0, -2))

        speech.module.get_submodule(linear.path).register_forward_pre_hook(record)
    calibration = noise_calibration(speech, 2)
    for features, tokens in zip(calibration.features, calibration.tokens, strict=True):
        speech.forward_tokens(torch.tensor([tokens]), speech.encode([features]))
    return {path: torch.cat(rows) for path, rows in seen.items()}


@BUILDERS
def test_the_end_loss_is_lower_than_with_gptq_where_it_counts(build: Build) -> None:
    """``sum_k tr(D_k H_k D_k^T)`` of the first block's linears, which read the same inputs in both."""
    speech = build()
    calibration = noise_calibration(speech, 2)
    linears = [each for each in speech.graph.encoder[0].linears if each.path in _first_link(speech)]
    shares = output_saliencies(speech, calibration, [each.path for each in linears], 4, by_clip=False)
    seen: dict[str, LinkStatistics] = {}
    Walker(speech, calibration, WalkOptions(gram=True), outputs=shares).walk(
        lambda task: seen.update({name: each for name, each in task.statistics.items() if each.by_output})
    )
    losses = {}
    for method in ("gptq", "guided"):
        weights = quantized(build, f"method={method}").weights
        losses[method] = 0.0
        for linear in linears:
            W = build().module.get_parameter(f"{linear.path}.weight")
            groups = seen[speech.graph.link_of(linear.path).name].of(linear).groups()
            for D, own in zip((weights[linear.path].dequantize() - W).tensor_split(4), groups, strict=True):
                losses[method] += float((D @ own.gram @ D.T).trace())
    assert losses["guided"] < losses["gptq"]


def _first_link(speech: SpeechModel) -> tuple[str, ...]:
    return speech.graph.link_of(speech.graph.encoder[0].linears[0].path).linears


COMPOSED = {
    "gptaq": ["method=guided", "method@method.rounder=gptaq"],
    "tarq": ["method=guided", "method@method.rounder=tarq"],
    "quik": ["method=guided", "method@method.rounder=quik"],
    "spqr": ["method=guided", "method@method.rounder=spqr", "method.rounder.act_order=false"],
    "spqr, one group": ["method=guided", "method@method.rounder=spqr", "method.groups=1"],
    "rotated": ["method=quarot", "method@method.rounder=guided", "method.rounder.rounder.range=mse"],
    "rotated, rows weighted": ["method=rsq", "method@method.rounder=guided"],
    "equalised": ["method=smoothquant", "method@method.rounder=guided"],
    "scaled and clipped": ["method=awq", "method@method.rounder=guided"],
    "start of learned rounding": ["method=tesseraq", "method@method.start=guided", "method.steps=1"],
    "start of distillation": ["method=distill", "method@method.start=guided", "method.epochs=1"],
}


@pytest.mark.parametrize("name", COMPOSED)
def test_it_composes(name: str) -> None:
    """With other rounders and behind transforms; and gradients move some codes."""
    overrides = COMPOSED[name]
    guided = quantized(tiny_whisper, *overrides)
    assert all(torch.isfinite(each.dequantize()).all() for each in guided.weights.values())
    assert {path: each.shape for path, each in guided.weights.items()} == {
        linear.path: (linear.out_features, linear.in_features) for linear in tiny_whisper().graph.linears
    }


def test_gradients_of_no_row_leave_the_rounder_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all rows alike, any number of groups gives the rounder's codes."""
    alike = output_saliencies

    def uniform(*args, **options):  # type: ignore[no-untyped-def]
        return {path: [torch.ones_like(each) for each in clips] for path, clips in alike(*args, **options).items()}

    monkeypatch.setattr("src.methods.guided.output_saliencies", uniform)
    plain, guided = (
        quantized(tiny_moonshine, "method=gptaq"),
        quantized(tiny_moonshine, "method=guided", "method@method.rounder=gptaq", "method.groups=3"),
    )
    for path, weight in plain.weights.items():
        assert (weight.codes == guided.weights[path].codes).float().mean() > 0.99, path


@pytest.mark.parametrize("rounder", ["rtn", "quarot", "tesseraq"])
def test_what_does_not_only_round_by_gram_matrices_is_refused(rounder: str) -> None:
    with pytest.raises(UserError, match=rf"method\.rounder: {rounder} does not only round weights by a Gram matrix"):
        build_method(composed("method=guided", f"method@method.rounder={rounder}").method)


def test_orders_of_columns_that_differ_by_group_are_refused_before_gradients_are_computed() -> None:
    with pytest.raises(UserError, match=r"method\.groups: spqr stores an order of columns"):
        quantized(tiny_whisper, "method=guided", "method@method.rounder=spqr")


def test_grids_of_statistics_that_groups_would_cut_are_refused() -> None:
    overrides = ["method@method.rounder=spqr", "method.rounder.act_order=false", "method.groups=3"]
    with pytest.raises(UserError, match=r"method\.groups: one weight cannot hold 3 groups as spqr makes them"):
        quantized(tiny_whisper, "method=guided", *overrides)


def test_a_share_of_the_guided_matrix_has_the_trace_of_the_plain_one() -> None:
    torch.manual_seed(0)
    X, Y, C = torch.randn(50, 6), 1e3 * torch.randn(50, 6), torch.randn(6, 6)
    plain, own = LinkStatistics(50, gram=X.T @ X, cross_gram=C), LinkStatistics(50, gram=Y.T @ Y, cross_gram=2 * C)
    scale = (X.T @ X).trace() / (Y.T @ Y).trace()
    for share in (0.3, 1.0):
        found = mixed(own, plain, share)
        torch.testing.assert_close(found.gram, share * scale * own.gram + (1 - share) * plain.gram)
        torch.testing.assert_close(found.gram.trace(), plain.gram.trace())
        torch.testing.assert_close(found.cross_gram, share * scale * 2 * C + (1 - share) * C)
    assert mixed(replace(own, cross_gram=None), replace(plain, cross_gram=None), 0.5).cross_gram is None


def test_what_it_needs_has_to_be_measured() -> None:
    method = build_method(composed("method=guided").method)
    with pytest.raises(ValueError, match="no Gram matrices of groups of output channels"):
        method.round(torch.zeros(4, 4), WeightSpec(3, -1, symmetric=False), LinkStatistics(5, gram=torch.eye(4)))
