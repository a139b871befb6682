"""Affine transforms leave the model's output alone, are measured as they are, and lower what rounding costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_omniquant import block_errors
from whole_models import MODELS, bench_of, double, largest_relative_error, outputs

from src.calib.task import BlockTask
from src.calib.walk import Walker, WalkOptions
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.methods.parts.affine_link import AffineLink, balanced, fold, install, start_links
from src.methods.workbench import Workbench
from src.models.graph import Feed
from src.models.speech import SpeechModel
from src.profiling.additions import online_rotations
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.extras import Extra
from src.quant.restore import restore
from src.quant.structure import RotationEdit
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.profiling.profiling_points import point_of_quantized
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def transformed(bench: Workbench, task: BlockTask) -> list[AffineLink]:
    """The block's transforms, far from where they start, made part of it."""
    generator = torch.Generator().manual_seed(7)
    links = start_links(bench, task, alpha=0.3)
    install(bench, task.block, links)
    for link in links:
        for parameter in link.parameters:
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.detach().add_(0.1 * noise * parameter.detach().abs().mean().clamp(min=0.5))
        link.truncate()
    fold(task, links)
    return links


def transform(speech: SpeechModel, **options: bool) -> Workbench:
    bench = bench_of(speech)
    assert bench.calibration is not None
    walker = Walker(speech, bench.calibration, WalkOptions(gram=False, **options))
    walker.walk(lambda task: transformed(bench, task) and None)
    return bench


@pytest.mark.parametrize("name", MODELS)
def test_the_output_stays_as_it_is(name: str) -> None:
    speech = double(MODELS[name])
    before = outputs(speech)
    transform(speech)
    assert largest_relative_error(outputs(speech), before) < 1e-10


@BUILDERS
def test_every_linear_reads_a_transformed_input_and_norms_multiply_once(build: Callable[[], SpeechModel]) -> None:
    speech, original = build(), build()
    bench = transform(speech)
    for linear in speech.graph.linears:
        W, before = (each.module.get_parameter(f"{linear.path}.weight") for each in (speech, original))
        assert (W - before).norm() > 0.3 * before.norm(), linear.path
    kinds = {edit.path: edit.kind for edit in bench.edits if isinstance(edit, RotationEdit)}
    for link in speech.graph.links:
        private = link.feed is Feed.NORM and link.source != speech.graph.encoder_norm
        assert {kinds.pop(path) for path in ([link.source] if private else link.linears)} == {
            "rotate_output" if private else "rotate_linear"
        }
    assert not kinds


@BUILDERS
@pytest.mark.parametrize("by_link", [False, True])
def test_statistics_are_measured_anew_as_algebra_says(build: Callable[[], SpeechModel], by_link: bool) -> None:
    speech = build()
    bench = bench_of(speech)
    assert bench.calibration is not None
    seen = []

    def compare(task: BlockTask) -> None:
        before = {name: stats.gram for name, stats in task.statistics.items()}
        links = transformed(bench, task)
        after = task.measure()
        named = {link.linears[0]: link for link in bench.graph.links}
        for each in links:
            link = next(link for path, link in named.items() if f"{task.block.path}.{each.linears[0]}" in link.linears)
            P, gram = each.stored_matrices(), before[link.name]
            left = torch.eye(1, dtype=torch.float64) if P.left is None else P.left.matrix
            M = torch.kron(left.contiguous(), P.right.matrix.contiguous())
            M = M if each.s is None else each.s.detach().double().unsqueeze(1) * M
            assert gram is not None
            expected, stats = M.T @ gram.double() @ M, after[link.name]
            assert stats.gram is not None
            assert stats.cross_gram is not None
            assert (stats.gram - expected).norm() < 1e-4 * expected.norm(), link.name
            # Nothing is rounded: both streams carry the same, if both are read in the new basis.
            assert stats.cross_gram.norm() < 1e-4 * expected.norm(), link.name
            seen.append(link.name)

    options = WalkOptions(gram=True, cross=True, refresh=by_link, link_by_link=by_link)
    Walker(speech, bench.calibration, options).walk(compare)
    assert {*seen} == {link.name for link in speech.graph.links}


@pytest.mark.parametrize(("n", "side"), [(288, 16), (384, 16), (1152, 32), (1536, 32), (54, 6), (7, 1), (1, 1)])
def test_factors_are_as_equal_as_they_can_be(n: int, side: int) -> None:
    assert balanced(n) == side


def quantized(build: Callable[[], SpeechModel], *overrides: str) -> tuple[SpeechModel, Quantizer]:
    speech, settings = build(), composed(*overrides)
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return speech, quantizer


@BUILDERS
@pytest.mark.parametrize(("bits", "abits"), [(3, 16), (4, 4)])
def test_blocks_are_reconstructed_better_than_by_round_to_nearest(
    build: Callable[[], SpeechModel], bits: int, abits: int
) -> None:
    learner = build_method(composed("method=flatquant", "method.epochs=8", "method@method.rounder=rtn").method)
    learned, nearest = block_errors(build, learner, bits, abits)
    ratios = [a / b for a, b in zip(learned, nearest, strict=True)]
    assert sum(ratios) / len(ratios) < 0.9


@BUILDERS
@pytest.mark.parametrize(
    "overrides",
    [
        ("method@method.rounder=rtn", "bits=w4a4"),
        ("method@method.rounder=gptaq", "bits=w4a8", "group_size=32"),
        ("method@method.rounder=gptaq", "method.rounder.strength={default: 0.25, fc2: 0.1}", "bits=w4a8"),
        ("method@method.rounder=gptaq", "method.clip=false", "bits=w4a8"),
        ("method@method.rounder=guided", "bits=w4a8"),
        ("method@method.rounder=autoround", "method.clip=false", "method.rounder.steps=2", "bits=w3a16"),
        ("method.scale=false", "bits=w4a4kv4", "symmetric=true"),
        ("bits=w4a8", "wbits=16"),
        ("bits=w4a4", "scope.encoder=false"),
    ],
    ids=" ".join,
)
def test_it_composes_and_the_stored_model_is_the_one_in_memory(
    build: Callable[[], SpeechModel], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    asked = ("method=flatquant", "method.epochs=1", *overrides)
    speech, quantizer = quantized(build, *asked)
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(tmp_path / "model", quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    again = build(seed=1)  # type: ignore[call-arg]  # other weights, all of which have to be replaced
    restore(again, tmp_path / "model", input_bits(again.graph, composed(*asked)))
    assert all(torch.equal(a, b) for a, b in zip(outputs(speech), outputs(again), strict=True))


def test_products_on_the_fly_are_counted_once_a_tensor() -> None:
    settings = composed("method=flatquant", "method.epochs=1", "bits=w4a8")
    speech, quantizer = quantized(tiny_whisper, "method=flatquant", "method.epochs=1", "bits=w4a8")
    counted = list(online_rotations(point_of_quantized(speech, settings, quantizer)))
    blocks, d, ffn = len(speech.graph.encoder), 64, speech.graph.linears[-1].in_features
    heads = d // speech.graph.head_dim
    norms, values, gelu = d * 16, d * heads, ffn * (balanced(ffn) + ffn // balanced(ffn))
    own = [each.macs for each in counted if each.place.component == "encoder"]
    assert sum(own) == blocks * (2 * norms + values + gelu)
    cross = [each.macs for each in counted if each.place.component == "cross_attention"]
    assert sum(cross) == len(speech.graph.decoder) * (norms + values + 2 * norms)  # q, o, k and v


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (("method=flatquant", "method@method.rounder=omniquant"), "method.rounder"),
        (("method=flatquant", "method@method.rounder=quarot"), "method.rounder"),
        (("method=quarot", "method@method.rounder=flatquant"), "method.rounder"),
        (("method=smoothquant", "method@method.rounder=flatquant"), "method.rounder"),
        (("method=flatquant", "method@method.rounder=autoround"), "method.clip"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_does_not_compose_is_refused(overrides: tuple[str, ...], field: str) -> None:
    with pytest.raises(UserError) as caught:
        build_method(composed(*overrides).method)
    assert caught.value.field == field


def test_it_says_that_it_leaves_products_on_the_fly() -> None:
    assert Extra.ROTATIONS in build_method(composed("method=flatquant").method).needs.stores
