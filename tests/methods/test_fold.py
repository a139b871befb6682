"""Scales and shifts move into the weights, and the model computes what it did before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from outlier_block import inputs_of, outlier_block
from whole_models import MODELS, bench_of, double, largest_relative_error, outputs

from src.methods.parts.fold import SHIFTABLE, fold_scale, fold_shift
from src.methods.parts.trial import inner_probe
from src.models.graph import Feed
from src.models.speech import SpeechModel

BUILDS = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)


@BUILDS
def test_any_scale_of_any_link_leaves_the_output_as_it_is(build: Callable[[], SpeechModel]) -> None:
    speech = double(build)
    before = outputs(speech)
    folded = set()
    for link in speech.graph.links:
        if link.feed is not Feed.ACTIVATION:
            width = speech.module.get_parameter(f"{link.linears[0]}.weight").shape[1]
            fold_scale(speech.module, link, 10 ** torch.randn(width))
            folded.add(link.feed)
    assert folded >= {Feed.NORM, Feed.LINEAR}
    assert largest_relative_error(outputs(speech), before) < 1e-10


@BUILDS
def test_any_shift_of_any_norm_or_value_leaves_the_output_as_it_is(build: Callable[[], SpeechModel]) -> None:
    speech = double(build)
    before, bench = outputs(speech), bench_of(speech)
    for link in speech.graph.links:
        if link.feed in SHIFTABLE:
            width = speech.module.get_parameter(f"{link.linears[0]}.weight").shape[1]
            fold_shift(bench, link, 10 * torch.randn(width))
    assert largest_relative_error(outputs(speech), before) < 1e-10
    assert {edit.kind for edit in bench.edits} == {"bias"}
    assert len({edit.path for edit in bench.edits}) == len(bench.edits)


@torch.no_grad()
def test_the_linears_see_the_shifted_and_scaled_activations() -> None:
    speech, task = outlier_block(seed=1)
    link = speech.graph.link_of(f"{task.block.path}.fc1")
    x = inputs_of(task, ["fc1"])["fc1"]
    z, s = torch.randn(64), torch.rand(64) + 0.5
    fold_shift(bench_of(speech), link, z)
    fold_scale(speech.module, link, s)
    torch.testing.assert_close(inputs_of(task, ["fc1"])["fc1"], (x - z) / s, rtol=1e-4, atol=1e-4)


def test_what_cannot_absorb_a_scale_or_shift_is_refused() -> None:
    speech = MODELS["moonshine-64"]()
    by_feed = {link.feed: link for link in speech.graph.links}
    with pytest.raises(ValueError, match="fed by a non-linearity, which no scale passes"):
        fold_scale(speech.module, by_feed[Feed.ACTIVATION], torch.ones(128))
    for feed in (Feed.ACTIVATION, Feed.GATED):
        with pytest.raises(ValueError, match=f"fed by a {feed.value}, which no shift passes"):
            fold_shift(bench_of(speech), by_feed[feed], torch.ones(128))


@pytest.mark.parametrize(
    ("model", "link", "module"),
    [
        ("whisper-64", "model.encoder.layers.0.self_attn.qkv", "model.encoder.layers.0.self_attn"),
        ("whisper-64", "model.encoder.layers.0.self_attn.out", "model.encoder.layers.0.self_attn.out_proj"),
        ("whisper-64", "model.encoder.layers.0.mlp.in", "model.encoder.layers.0.fc1"),
        ("moonshine-64", "model.decoder.layers.0.mlp.in", "model.decoder.layers.0.mlp"),
        ("moonshine-64", "model.decoder.layers.0.mlp.out", "model.decoder.layers.0.mlp.fc2"),
        ("moonshine-64", "model.decoder.layers.0.encoder_attn.q", "model.decoder.layers.0.encoder_attn"),
    ],
)
def test_a_link_is_judged_by_the_module_around_it(model: str, link: str, module: str) -> None:
    graph = MODELS[model]().graph
    block = next(block for block in graph.blocks if link.startswith(f"{block.path}."))
    assert inner_probe(block, next(each for each in graph.links if each.name == link)).module == module


def test_shared_keys_and_values_are_judged_in_every_decoder_block() -> None:
    graph = MODELS["moonshine-64"]().graph
    shared = graph.link_of(f"{graph.decoder[0].path}.encoder_attn.k_proj")
    assert [inner_probe(block, shared).module for block in graph.decoder] == [
        f"{block.path}.encoder_attn" for block in graph.decoder
    ]
