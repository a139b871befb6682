"""What methods add to a model or leave at 16 bits, computed by hand and compared with the stored file.

The page's Moonshine: d = 4, one head, ffn = 8; 3 frames; 3 decoder passes over 3 positions (see ``profiling_points``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.models.graph import Linear
from src.models.speech import SpeechModel
from src.profiling.bitops import by_component, by_phase, products, total_bops, total_macs
from src.profiling.cost_model import CostModel, LinearBits
from src.profiling.memory_io import activation_bytes, memory_io
from src.profiling.point_profile import parameter_count, profile_point
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.structure import BiasEdit, Edit, RMSNormEdit, rotation_edit
from tests.composed import composed
from tests.profiling.profiling_points import page_point, point_of_quantized, quantized
from tests.tiny import tiny_moonshine, tiny_whisper

ENCODER, DECODER = "model.encoder.layers.0", "model.decoder.layers.0"
DENSE = torch.eye(4)


def _added(edits: tuple[Edit, ...], kv_bits: int = 16) -> tuple[dict[str, int], dict[str, int], dict[str, int], int]:
    """What edits add: MACs by component and by phase, bytes by component, bytes of activations; zeros left out."""
    plain, edited = page_point(kv_bits=kv_bits), page_point(kv_bits=kv_bits, edits=edits)

    def difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}

    by_both = [
        difference(*(group(products(point), lambda product: product.macs) for point in (edited, plain)))
        for group in (by_component, by_phase)
    ]
    added = set(products(edited)) - set(products(plain))
    assert {(product.left_bits, product.right_bits) for product in added} <= {(16, 16)}
    moved = difference(memory_io(edited), memory_io(plain))
    return by_both[0], by_both[1], moved, activation_bytes(edited) - activation_bytes(plain)


def _with(kept: LinearBits, path: str) -> CostModel:
    """The page at w4a8 but for one linear."""
    point = page_point(4, 8)
    return dataclasses.replace(point, bits={**point.bits, path: kept})


def _linear(path: str) -> Linear:
    return next(linear for linear in page_point().graph.linears if linear.path == path)


def test_two_factors_cost_their_sides() -> None:
    edit = rotation_edit("rotate_linear", f"{ENCODER}.mlp.fc2", DENSE, torch.eye(2))
    # 8 values, sides 4 and 2, 3 frames; 16 + 4 values of factors, once; 2 products read and write 8 values
    macs = 8 * (4 + 2) * 3
    assert _added((edit,)) == ({"encoder": macs}, {"encoder": macs}, {"encoder": 2 * 20}, 2 * 3 * 2 * (8 + 8))


def test_a_factor_that_is_the_identity_costs_nothing() -> None:
    edit = rotation_edit("rotate_linear", f"{DECODER}.encoder_attn.o_proj", 2, torch.eye(2))
    # 4 values, side 2, one prompt token and 2 steps; the factor in 3 passes
    macs = 4 * 2
    assert _added((edit,)) == (
        {"cross_attention": 3 * macs},
        {"prefill": macs, "decode": 2 * macs},
        {"cross_attention": 3 * 2 * 4},
        2 * 3 * (4 + 4),
    )


def test_a_rotation_before_the_cross_attentions_keys_runs_once_a_frame() -> None:
    edit = rotation_edit("rotate_linear", f"{DECODER}.encoder_attn.k_proj", DENSE)
    assert _added((edit,)) == ({"cross_attention": 48}, {"cross_kv": 48}, {"cross_attention": 32}, 2 * 3 * 8)


def test_dense_rotations_where_streams_begin_and_end() -> None:
    paths = (ENCODER, DECODER, "model.decoder.norm")
    # 16 a row: 3 frames; 3 tokens, in the first block and in the final norm
    assert _added(tuple(rotation_edit("rotate_module", path, DENSE) for path in paths)) == (
        {"encoder": 48, "decoder": 2 * 48},
        {"encoder": 48, "prefill": 32, "decode": 64},
        {"encoder": 32, "decoder": 2 * 3 * 32},
        2 * 3 * 3 * (4 + 4),
    )


def test_keys_are_rotated_and_back_where_the_cache_is_quantized() -> None:
    edit = rotation_edit("rotate_keys", "", DENSE)
    assert _added((edit,), kv_bits=16) == ({}, {}, {}, 0)
    # one layer, one head of 4: 16 there and 16 back, for 3 tokens and for 3 frames
    assert _added((edit,), kv_bits=8) == (
        {"decoder": 96, "cross_attention": 96},
        {"cross_kv": 96, "prefill": 32, "decode": 64},
        {"decoder": 3 * 32, "cross_attention": 32},
        2 * 2 * 3 * 2 * (4 + 4),
    )


def test_biases_are_parameters_read_with_their_module_and_not_multiplied() -> None:
    per_frame = (f"{ENCODER}.mlp.fc1", "model.encoder.layer_norm", f"{DECODER}.encoder_attn.v_proj")
    per_token = (f"{DECODER}.mlp.fc1", f"{DECODER}.post_attention_layernorm", f"{DECODER}.input_layernorm")
    edits = tuple(BiasEdit(path) for path in (*per_frame, *per_token))
    # fc1 of 8 and final norm of 4; v of 4 once, and the norm before q of 4 in 3 passes; gated fc1 of 16 and norm of 4
    moved = {"encoder": 2 * (8 + 4), "cross_attention": 2 * (4 + 3 * 4), "decoder": 2 * 3 * (16 + 4)}
    assert _added(edits) == ({}, {}, moved, 0)
    assert parameter_count(page_point(edits=edits)) == parameter_count(page_point()) + 8 + 4 + 4 + 16 + 4 + 4


def test_rms_norms_cost_what_layer_norms_do() -> None:
    assert _added((RMSNormEdit(f"{ENCODER}.input_layernorm"),)) == ({}, {}, {}, 0)


def test_edits_of_unknown_modules_are_refused() -> None:
    with pytest.raises(KeyError, match="no_such_block"):
        products(page_point(edits=(rotation_edit("rotate_module", "no_such_block", DENSE),)))


def test_exact_inputs_are_multiplied_and_moved_at_16_bits() -> None:
    linear = _linear(f"{ENCODER}.mlp.fc2")  # [4, 8] on 3 frames
    plain, point = page_point(4, 8), _with(LinearBits(28, 4, 8, exact_inputs=2), linear.path)
    assert total_macs(products(point)) == total_macs(products(plain))
    assert total_bops(products(point)) - total_bops(products(plain)) == 3 * 4 * ((6 * 4 * 8 + 2 * 16 * 16) - 8 * 4 * 8)
    assert activation_bytes(point) - activation_bytes(plain) == 3 * 2 * (2 - 1)
    profiles = [profile_point(each, disk_bytes=0) for each in (plain, point)]
    assert profiles[0].quantized_parameters - profiles[1].quantized_parameters == 4 * 2


def test_outliers_are_multiplied_at_16_bits_with_inputs_of_the_activations_width() -> None:
    linear = _linear(f"{DECODER}.self_attn.q_proj")  # [4, 4] on 3 tokens
    plain, point = page_point(4, 8), _with(LinearBits(28, 4, 8, outliers=3), linear.path)
    assert total_macs(products(point)) == total_macs(products(plain))
    assert total_bops(products(point)) - total_bops(products(plain)) == 3 * 3 * (16 - 4) * 8
    assert activation_bytes(point) == activation_bytes(plain)
    profiles = [profile_point(each, disk_bytes=0) for each in (plain, point)]
    assert profiles[0].quantized_parameters - profiles[1].quantized_parameters == 3


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
@pytest.mark.parametrize(
    "overrides",
    [
        ("method=fp",),
        ("method=rtn", "wbits=3", "scope.encoder=false"),
        ("method=quarot_rtn", "bits=w4a8"),
        ("method=quarot", "wbits=16"),
        ("method=flatquant", "method.epochs=1", "bits=w4a8"),
        ("method=quik", "bits=w4a8"),
        ("method=spqr", "wbits=3"),
        ("method=smoothquant", "bits=w4a8"),
        ("method=rtn", "scope=head", "wbits=3"),
        ("method=rtn", "scope=frontend", "wbits=5", "symmetric=true"),
        ("method=quarot_rtn", "scope=everything", "bits=w4a8", "group_size=32"),
        ("method=rtn", "bits=w4a8", "activation.range=static"),
    ],
    ids=" ".join,
)
def test_the_stored_model_has_the_bytes_that_the_profile_counts(
    build: Callable[[], SpeechModel], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    speech, settings = build(), composed(*overrides)
    quantizer = quantized(speech, settings)
    path = tmp_path / "model.safetensors"
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(path, quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    file = path.read_bytes()
    header = 8 + int.from_bytes(file[:8], "little")
    point = point_of_quantized(speech, settings, quantizer)
    profile = profile_point(point, disk_bytes=len(file))
    assert profile.parameter_bytes == len(file) - header
    assert profile.parameters == sum(parameter.numel() for parameter in speech.module.parameters())


def test_the_layer_table_counts_what_stays_at_16_bits() -> None:
    settings = {method: composed(f"method={method}", "bits=w4a8") for method in ("quik", "spqr")}
    quik, spqr = (quantized(tiny_whisper(), each).rows for each in settings.values())
    share = settings["quik"].method["outlier_share"]
    assert all(row["exact_inputs"] == max(1, round(share * row["shape"][1])) for row in quik)
    assert sum(row["outliers"] for row in spqr) > 0
    assert not any(row["outliers"] for row in quik)
    assert not any(row["exact_inputs"] for row in spqr)
