from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calibration_rows import correlated
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.gptaq import GPTAQ
from src.methods.gptq import gptq
from src.methods.parts.by_linear import number_of
from src.quant.link_statistics import LinkStatistics
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def method(**changed: object) -> GPTAQ:
    values = {"damp": 0.01, "block_size": 128, "act_order": True, "static_groups": True, "range": "minmax", "passes": 0}
    return GPTAQ(name="gptaq", **{**values, "strength": 0.25, **changed})  # type: ignore[arg-type]


def drifted(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A weight [16, 64], its inputs, and what they are at full precision [512, 64]."""
    W, X = correlated(16, 64, 512, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    mix = torch.randn(64, 64, generator=generator) / 8
    return W, X, X + 0.2 * X @ mix


def statistics(X: Tensor, X_fp: Tensor) -> LinkStatistics:
    return LinkStatistics(len(X), gram=X.T @ X, cross_gram=(X_fp - X).T @ X)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [-1, 16])
def test_outputs_are_closer_to_full_precision_than_with_gptq(bits: int, group_size: int) -> None:
    """``||Q X - W X_fp||^2``, summed over layers: what it minimises."""
    spec, losses = WeightSpec(bits, group_size, symmetric=False), {0.0: 0.0, 0.25: 0.0}
    for seed in range(6):
        W, X, X_fp = drifted(seed)
        for strength in losses:
            Q = method(strength=strength).round(W, spec, statistics(X, X_fp)).weight.dequantize()
            losses[strength] += float((X @ Q.T - X_fp @ W.T).square().sum())
    assert losses[0.25] < 0.97 * losses[0.0]


@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("static_groups", [False, True])
def test_without_strength_it_is_gptq_to_the_digit(group_size: int, static_groups: bool) -> None:
    W, X, X_fp = drifted(0)
    spec, stats = WeightSpec(3, group_size, symmetric=False), statistics(X, X_fp)
    ours = method(strength=0.0, static_groups=static_groups).round(W, spec, stats).weight
    theirs = gptq(W, X.T @ X, spec, act_order=True, static_groups=static_groups).weight
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.equal(ours.dequantize(), theirs.dequantize())


def test_inputs_that_nothing_has_changed_need_no_correction() -> None:
    W, X, _ = drifted(0)
    spec = WeightSpec(3, -1, symmetric=False)
    ours = method(strength=1.0).round(W, spec, statistics(X, X)).weight
    assert torch.equal(ours.codes, gptq(W, X.T @ X, spec, act_order=True, static_groups=True).weight.codes)


@pytest.mark.parametrize("static_groups", [False, True])
def test_the_block_size_does_not_change_the_codes(static_groups: bool) -> None:
    W, X, X_fp = drifted(1)
    spec, stats = WeightSpec(4, 16, symmetric=False), statistics(X, X_fp)
    codes = [
        method(strength=1.0, block_size=size, static_groups=static_groups).round(W, spec, stats).weight.codes
        for size in (1, 7, 24, 64, 128)
    ]
    assert all(torch.equal(each, codes[0]) for each in codes)


def test_only_the_proportions_of_the_matrices_matter() -> None:
    W, X, X_fp = drifted(2)
    spec, stats = WeightSpec(3, -1, symmetric=False), statistics(X, X_fp)
    smaller = replace(stats, gram=stats.gram / 1024, cross_gram=stats.cross_gram / 1024)  # type: ignore[operator]
    first, second = (method().round(W, spec, each).weight for each in (stats, smaller))
    assert torch.equal(first.codes, second.codes)


@BUILDERS
@pytest.mark.parametrize("wrapper", [[], ["method=quarot"], ["method=smoothquant"]])
def test_in_a_model_without_strength_it_is_gptq(build, wrapper: list[str]) -> None:  # type: ignore[no-untyped-def]
    """Alone or behind a transform; both link by link."""

    def codes(name: str, *overrides: str) -> dict[str, Tensor]:
        chosen = [*wrapper, f"method@method.rounder={name}"] if wrapper else [f"method={name}"]
        speech = build()
        settings = composed(*chosen, "bits=w3a16", "calib.sequential=link", *overrides)
        quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
        quantizer.run()
        return {path: weight.codes for path, weight in quantizer.weights.items()}

    key = "method.rounder.strength" if wrapper else "method.strength"
    ours, theirs, corrected = codes("gptaq", f"{key}=0.0"), codes("gptq"), codes("gptaq", f"{key}=1.0")
    assert all(torch.equal(ours[path], theirs[path]) for path in theirs)
    assert any(not torch.equal(corrected[path], theirs[path]) for path in theirs)


def test_what_it_needs_has_to_be_measured() -> None:
    W, X, _ = drifted(0)
    with pytest.raises(ValueError, match="needs the Gram and the cross-Gram matrix"):
        method().round(W, WeightSpec(4, -1, symmetric=False), LinkStatistics(len(X), gram=X.T @ X))


def test_it_is_refused_where_no_block_sees_quantized_predecessors() -> None:
    settings = composed("method=gptaq", "wbits=3", "calib.propagate=fp")
    with pytest.raises(UserError, match=r"calib\.propagate: gptaq corrects what rounding its predecessors did"):
        Quantizer(tiny_whisper(), build_method(settings.method), settings)
    settings = composed("method=gptq", "wbits=3", "calib.propagate=fp", "calib.sequential=link")
    with pytest.raises(UserError, match=r"calib\.sequential: no block sees inputs from rounded linears"):
        Quantizer(tiny_whisper(), build_method(settings.method), settings)


def codes_of(build, *overrides: str) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    settings, speech = composed("bits=w3a16", *overrides), build()
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return {path: weight.codes for path, weight in quantizer.weights.items()}


@pytest.mark.parametrize(
    ("build", "method", "key"),
    [
        (tiny_whisper, "method=gptaq", "method.strength"),
        (tiny_whisper, "method=quarot method@method.rounder=gptaq", "method.rounder.strength"),
        (tiny_moonshine, "method=guided method@method.rounder=gptaq", "method.rounder.strength"),
    ],
)
def test_a_strength_by_name_is_that_of_the_linears_it_names(build, method: str, key: str) -> None:  # type: ignore[no-untyped-def]
    """Up to the linear, codes are those of GPTQ; one for all says as much as the number alone."""
    start, linears = method.split(), [linear.path for linear in build().graph.linears]
    alike = codes_of(build, *start, f"{key}={{default: 0.5}}")
    number = codes_of(build, *start, f"{key}=0.5")
    assert all(torch.equal(alike[path], number[path]) for path in linears)
    named = build().graph.decoder[0].linears[-1].path
    none = codes_of(build, *start, f"{key}=0.0")
    late = codes_of(build, *start, f"{key}={{default: 0, {named}: 1.0}}")
    assert all(torch.equal(late[path], none[path]) for path in linears[: linears.index(named)])
    assert not torch.equal(late[named], none[named])


def test_names_match_components_and_parts_of_paths_and_the_closest_counts() -> None:
    linears = {linear.path: linear for linear in tiny_whisper().graph.linears}
    fc2, cross = (linears[f"model.decoder.layers.1.{each}"] for each in ("fc2", "encoder_attn.k_proj"))
    for numbers, expected in (
        ({"decoder": 0.5, "fc2": 0.1, "default": 0.9}, 0.1),
        ({"fc2": 0.1, "layers.1": 0.2}, 0.2),
        ({"fc2": 0.1, "layers": 0.2}, 0.1),
        ({"c2": 0.1, "encoder": 0.3, "default": 0.5}, 0.5),
        ({"c2": 0.1, "encoder": 0.3}, None),
    ):
        assert number_of(fc2, numbers) == expected
        assert number_of(fc2, dict(reversed(numbers.items()))) == expected
    assert number_of(cross, {"cross_attention": 0.2, "decoder": 0.5}) == 0.2
    assert number_of(cross, {"encoder_attn.k_proj": 0.2, "k_proj": 0.1, "cross_attention": 0.3}) == 0.2
    assert number_of(cross, {"decoder": 0.5, "encoder": 0.5}) is None


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ("{encoder: 0.5, fc3: 0.1, default: 0}", r"method\.strength: 'fc3' is no part of this model"),
        ("{encoder: 0.5, decoder: 0.1}", r"no number holds for model\.decoder\.layers\.0\.encoder_attn"),
        ("{encoder: 2}", r"method\.strength: .* is not a number from 0 to 1, or such numbers by name"),
        ("[0.5]", r"method\.strength: .* is not a number from 0 to 1, or such numbers by name"),
    ],
)
def test_strengths_that_name_nothing_are_refused(strength: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        codes_of(tiny_whisper, "method=gptaq", f"method.strength={strength}")
