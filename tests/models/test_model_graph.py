"""The declared structure matches the modules, and every way it can be wrong is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import MoonshineConfig

from src.models.graph import Block, Component, Feed, Linear, ModelGraph, RowKind
from src.models.graph_check import GraphError, check_graph
from src.models.moonshine.graph import moonshine_graph
from src.models.speech import SpeechModel
from tests.tiny import MOONSHINE, tiny_moonshine, tiny_whisper

BUILDERS = (tiny_whisper, tiny_moonshine)


@pytest.fixture(params=BUILDERS, ids=["whisper", "moonshine"])
def speech(request: pytest.FixtureRequest) -> SpeechModel:
    return request.param()


def _noise() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(12_000)).astype(np.float32)


def _with_encoder_block(graph: ModelGraph, linears: tuple[Linear, ...]) -> ModelGraph:
    return replace(graph, encoder=(Block(graph.encoder[0].path, linears), *graph.encoder[1:]))


def test_graph_matches_module(speech: SpeechModel) -> None:
    check_graph(speech.graph, speech.module)


def test_every_linear_of_the_blocks_is_declared(speech: SpeechModel) -> None:
    inside = {name for name, child in speech.module.named_modules() if isinstance(child, nn.Linear)} - {"proj_out"}
    assert {linear.path for linear in speech.graph.linears} == inside


def test_graph_follows_asymmetric_depths() -> None:
    speech = tiny_whisper(encoder_layers=3, decoder_layers=1)
    check_graph(speech.graph, speech.module)
    assert len(speech.graph.encoder) == 3
    assert len(speech.graph.decoder) == 1


def test_cross_attention_reads_the_encoder_norm_through_one_link(speech: SpeechModel) -> None:
    link = speech.graph.link_of("model.decoder.layers.1.encoder_attn.k_proj")
    assert link is speech.graph.link_of("model.decoder.layers.0.encoder_attn.v_proj")
    assert link.source == "model.encoder.layer_norm"
    assert link.rows is RowKind.FRAME
    assert len(link.linears) == 2 * len(speech.graph.decoder)


def test_cross_attention_is_a_component_of_its_own(speech: SpeechModel) -> None:
    components = {linear.path: linear.component for linear in speech.graph.linears}
    assert all((".encoder_attn." in path) == (c is Component.CROSS_ATTENTION) for path, c in components.items())


def test_norm_scales_fold_into_the_linears_they_feed(speech: SpeechModel) -> None:
    """Scaling a norm's output and the inverse of its readers' columns leaves the logits as they were."""
    tokens = torch.tensor([[1, 5, 9, 4]])
    features = speech.features([_noise()])
    before = speech.forward_tokens(tokens, speech.encode(features))
    generator = torch.Generator().manual_seed(0)
    for link in speech.graph.links:
        if link.feed is not Feed.NORM:
            continue
        norm = speech.module.get_submodule(link.source)
        scale = torch.rand(norm.weight.shape, generator=generator) + 0.5
        norm.weight.mul_(scale)
        if norm.bias is not None:
            norm.bias.mul_(scale)
        for path in link.linears:
            speech.module.get_submodule(path).weight.div_(scale)
    torch.testing.assert_close(speech.forward_tokens(tokens, speech.encode(features)), before, atol=1e-4, rtol=1e-4)


def test_linear_and_gated_sources_fold_into_their_readers(speech: SpeechModel) -> None:
    """The rows a link names can be scaled when its readers' columns are divided: v -> out, gated fc1 -> fc2."""
    tokens = torch.tensor([[1, 5, 9, 4]])
    features = speech.features([_noise()])
    before = speech.forward_tokens(tokens, speech.encode(features))
    folded = [link for link in speech.graph.links if link.feed in {Feed.LINEAR, Feed.GATED}]
    generator = torch.Generator().manual_seed(0)
    for link in folded:
        source = speech.module.get_submodule(link.source)
        start, stop = link.source_rows or (0, source.out_features)
        scale = torch.rand(stop - start, generator=generator) + 0.5
        source.weight[start:stop] *= scale[:, None]
        if source.bias is not None:
            source.bias[start:stop] *= scale
        for path in link.linears:
            speech.module.get_submodule(path).weight.div_(scale)
    assert folded
    torch.testing.assert_close(speech.forward_tokens(tokens, speech.encode(features)), before, atol=1e-4, rtol=1e-4)


def test_grouped_query_values_do_not_fold_one_to_one() -> None:
    graph = moonshine_graph(MoonshineConfig(**{**MOONSHINE, "decoder_num_key_value_heads": 1}))
    assert graph.link_of("model.decoder.layers.0.self_attn.o_proj").feed is Feed.ACTIVATION
    assert graph.link_of("model.encoder.layers.0.self_attn.o_proj").feed is Feed.LINEAR


def test_removed_module_is_reported(speech: SpeechModel) -> None:
    speech.module.get_submodule("model.encoder.layers.0.self_attn").q_proj = None
    with pytest.raises(GraphError, match=r"model\.encoder\.layers\.0\.self_attn\.q_proj does not exist"):
        check_graph(speech.graph, speech.module)


def test_renamed_module_is_reported_as_missing_and_as_undeclared(speech: SpeechModel) -> None:
    attention = speech.module.get_submodule("model.decoder.layers.1.encoder_attn")
    attention.value = attention.v_proj
    del attention.v_proj
    with pytest.raises(GraphError) as caught:
        check_graph(speech.graph, speech.module)
    assert "encoder_attn.v_proj does not exist" in str(caught.value)
    assert "encoder_attn.value is not declared" in str(caught.value)


def test_undeclared_linear_is_reported(speech: SpeechModel) -> None:
    speech.module.get_submodule("model.encoder.layers.1").adapter = nn.Linear(64, 64)
    with pytest.raises(GraphError, match=r"layers\.1\.adapter is not declared"):
        check_graph(speech.graph, speech.module)


def test_linear_replaced_by_another_module_is_reported(speech: SpeechModel) -> None:
    speech.module.get_submodule("model.encoder.layers.0.self_attn").k_proj = nn.Conv1d(64, 64, 1)
    with pytest.raises(GraphError, match="is a Conv1d, not a linear"):
        check_graph(speech.graph, speech.module)


def test_wrong_shape_is_reported(speech: SpeechModel) -> None:
    first, *rest = speech.graph.encoder[0].linears
    graph = _with_encoder_block(speech.graph, (replace(first, out_features=65), *rest))
    with pytest.raises(GraphError, match="is 64 x 64, declared 65 x 64"):
        check_graph(graph, speech.module)


def test_linear_in_no_link_or_two_is_reported(speech: SpeechModel) -> None:
    with pytest.raises(GraphError, match="in 0 links"):
        check_graph(replace(speech.graph, links=speech.graph.links[1:]), speech.module)
    doubled = (*speech.graph.links, replace(speech.graph.links[0], name="again"))
    with pytest.raises(GraphError, match="in 2 links"):
        check_graph(replace(speech.graph, links=doubled), speech.module)


def test_wrong_source_is_reported(speech: SpeechModel) -> None:
    first, *rest = speech.graph.links
    linear_as_norm = replace(first, source=speech.graph.encoder[0].linears[0].path)
    with pytest.raises(GraphError, match="is a Linear, not a norm source"):
        check_graph(replace(speech.graph, links=(linear_as_norm, *rest)), speech.module)


def test_rows_beyond_the_source_are_reported() -> None:
    speech = tiny_moonshine()
    links = [replace(link, source_rows=(0, 10_000)) if link.feed is Feed.GATED else link for link in speech.graph.links]
    with pytest.raises(GraphError, match="are not rows of"):
        check_graph(replace(speech.graph, links=tuple(links)), speech.module)
