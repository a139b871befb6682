from __future__ import annotations

from dataclasses import replace

import pytest

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.models.graph import Block, Component, Linear, ModelGraph
from src.quant.plan import check_group_size, uniform_plan
from src.settings import ScopeSettings

ENCODER = Linear("encoder.0.fc1", Component.ENCODER, 1152, 288)
DECODER = Linear("decoder.0.self_attn.q_proj", Component.DECODER, 288, 288)
CROSS = Linear("decoder.0.encoder_attn.k_proj", Component.CROSS_ATTENTION, 288, 288)
FC2 = Linear("decoder.0.fc2", Component.DECODER, 288, 1152)
SPEC = WeightSpec(4, 32, False)


@pytest.fixture
def graph() -> ModelGraph:
    return ModelGraph(
        encoder=(Block("encoder.0", (ENCODER,)),),
        decoder=(Block("decoder.0", (DECODER, CROSS, FC2)),),
        links=(),
        encoder_norm="encoder.norm",
        decoder_norm="decoder.norm",
        frontend=(),
        embedding="decoder.embed",
        head="head",
        head_dim=36,
    )


def scope(encoder: bool = True, decoder: bool = True, cross_attention: bool = True) -> ScopeSettings:
    return ScopeSettings(encoder=encoder, decoder=decoder, cross_attention=cross_attention)


def test_every_linear_is_listed_and_those_out_of_scope_have_no_grid(graph: ModelGraph) -> None:
    plan = uniform_plan(graph, scope(cross_attention=False), SPEC)
    assert plan == {ENCODER.path: SPEC, DECODER.path: SPEC, CROSS.path: None, FC2.path: SPEC}
    assert list(plan) == [linear.path for linear in graph.linears]


def test_cross_attention_is_a_component_of_its_own(graph: ModelGraph) -> None:
    plan = uniform_plan(graph, scope(encoder=False, decoder=False), SPEC)
    assert [path for path, spec in plan.items() if spec] == [CROSS.path]


def test_without_a_grid_every_weight_stays_at_sixteen_bits(graph: ModelGraph) -> None:
    assert set(uniform_plan(graph, scope(), None).values()) == {None}


def test_an_empty_scope_is_an_error_that_names_the_keys(graph: ModelGraph) -> None:
    with pytest.raises(UserError, match=r"^scope: no linear is in scope\. .*scope\.encoder"):
        uniform_plan(graph, scope(False, False, False), SPEC)


def test_the_keys_named_are_of_parts_that_the_model_has(graph: ModelGraph) -> None:
    without = replace(graph, decoder=())
    with pytest.raises(UserError, match=r"Set scope\.encoder to true, or set head_bits or frontend_bits"):
        uniform_plan(without, scope(encoder=False), SPEC)


def test_a_group_size_that_does_not_fit_names_the_layer_and_those_that_do() -> None:
    with pytest.raises(UserError) as caught:
        check_group_size([ENCODER, FC2], 64)
    message = str(caught.value)
    assert "group_size: 64 does not divide the input width 288 of encoder.0.fc1." in message
    assert "288, 144, 96, 72, 48, 36, 32, 24, 18, 16, 12, 9, 8." in message


def test_a_layer_out_of_scope_does_not_restrict_the_group_size(graph: ModelGraph) -> None:
    wide = WeightSpec(4, 9 * 128, False)
    with pytest.raises(UserError, match="group_size"):
        uniform_plan(graph, scope(), wide)
    check_group_size([FC2], 128)


def test_widths_without_a_common_group_leave_one_group_per_channel() -> None:
    narrow = Linear("narrow", Component.ENCODER, 8, 7)
    with pytest.raises(UserError, match="Use -1, one group per output channel"):
        check_group_size([ENCODER, narrow], 32)
    check_group_size([ENCODER, narrow], -1)
