"""Cached keys on grids per channel, as in KIVI."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from src.decoding.decode import greedy
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.quant.fake import (
    ChannelKVLayer,
    QuantizedKVLayer,
    fake_quantize_channels,
    fake_quantize_tokens,
    kv_layer_factory,
    tell_frames,
)
from src.quant.rotation import Rotation
from tests.calib.clips import LENGTHS, noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def written(layer: ChannelKVLayer, keys: Tensor, *sizes: int) -> Tensor:
    """All keys of ``layer`` after ``keys`` [batch, heads, tokens, width] were written in steps of ``sizes``."""
    for step in keys.split(sizes, dim=2):
        stored, _ = layer.update(step, step)
    return stored


def test_groups_are_rounded_when_complete_and_the_rest_waits_at_16_bits() -> None:
    keys = torch.randn(2, 3, 11, 8)
    stored = written(ChannelKVLayer(3, 4), keys, 6, 1, 1, 1, 1, 1)
    for start in (0, 4):
        group = slice(start, start + 4)
        assert torch.equal(stored[:, :, group], fake_quantize_channels(keys[:, :, group], 3))
    assert torch.equal(stored[:, :, 8:], keys[:, :, 8:])


@pytest.mark.parametrize("sizes", [(11,), (1,) * 11, (5, 6)])
def test_the_steps_in_which_keys_come_do_not_matter(sizes: tuple[int, ...]) -> None:
    keys = torch.randn(2, 3, 11, 8)
    assert torch.equal(written(ChannelKVLayer(2, 4), keys, *sizes), written(ChannelKVLayer(2, 4), keys, 3, 8))


def test_what_a_step_reads_is_what_is_stored_and_values_are_rounded_per_token() -> None:
    layer, keys, values = ChannelKVLayer(4, 2), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    read = layer.update(keys, values)
    assert read[0] is layer.keys
    assert torch.equal(read[1], fake_quantize_tokens(values, 4))
    assert layer.get_seq_length() == 5


def test_sequences_that_leave_the_batch_leave_the_others_as_they_are() -> None:
    keys = torch.randn(3, 2, 9, 8)
    layer = ChannelKVLayer(3, 4)
    written(layer, keys[:, :, :6], 6)
    layer.batch_select_indices(torch.tensor([0, 2]))
    stored = written(layer, keys[[0, 2], :, 6:], 1, 1, 1)
    assert torch.equal(stored, written(ChannelKVLayer(3, 4), keys, 9)[[0, 2]])


@pytest.mark.parametrize("bits", [2, 4])
def test_keys_with_an_outlier_channel_fare_better_per_channel_than_per_token(bits: int) -> None:
    keys = torch.randn(1, 2, 32, 16)
    keys[..., 3] += 40
    channel = written(ChannelKVLayer(bits, 8), keys, 32)
    token = QuantizedKVLayer(bits).update(keys, keys)[0]
    others = [index for index in range(16) if index != 3]
    assert (channel - keys)[..., others].norm() < 0.5 * (token - keys)[..., others].norm()


def test_more_bits_lower_the_error() -> None:
    keys = torch.randn(1, 2, 32, 16)
    errors = [float((written(ChannelKVLayer(bits, 8), keys, 32) - keys).norm()) for bits in (2, 3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


def test_padded_frames_change_no_grid() -> None:
    keys, mask = torch.randn(2, 2, 9, 8), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    keys[1, :, 5:] = 1e4
    layer = ChannelKVLayer(3, 4)
    layer.frames = mask
    stored = written(layer, keys, 9)
    assert torch.equal(stored[0], fake_quantize_channels(keys[0], 3))
    assert torch.equal(stored[1, :, :5], fake_quantize_channels(keys[1, :, :5], 3))
    assert torch.isfinite(stored).all()


@BUILDERS
def test_only_cross_attention_is_told_the_frames(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    cache, mask = speech.new_cache(kv_layer_factory(4, key_group=8)), torch.ones(1, 3, dtype=torch.bool)
    tell_frames(cache, mask)
    assert all(layer.frames is mask for layer in cache.cross_attention_cache.layers)
    assert all(layer.frames is None for layer in cache.self_attention_cache.layers)


@BUILDERS
def test_transcripts_do_not_depend_on_the_batch(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    features = noise_calibration(speech, 5).features
    factory = kv_layer_factory(4, key_group=4)
    together = greedy(speech, features, LENGTHS, suppress=False, kv_layer=factory)
    pairs = zip(features, LENGTHS, strict=True)
    alone = [greedy(speech, [each], [length], suppress=False, kv_layer=factory)[0] for each, length in pairs]
    assert together == alone


def test_rotated_keys_are_not_rounded_per_channel() -> None:
    with pytest.raises(UserError, match=r"cache\.keys.*method\.keys=false"):
        kv_layer_factory(4, Rotation(torch.eye(8)), 32)
    assert kv_layer_factory(16, Rotation(torch.eye(8)), None)


@pytest.mark.parametrize("rotates", [True, False])
def test_a_method_that_rotates_keys_refuses_before_it_rounds(rotates: bool) -> None:
    overrides = ("bits=w4a16kv4", "cache.keys=channel", f"method.keys={str(rotates).lower()}")
    settings = composed("method=quarot_rtn", *overrides)
    quantizer = Quantizer(tiny_whisper(), build_method(settings.method), settings)
    if rotates:
        with pytest.raises(UserError, match=r"cache\.keys"):
            quantizer.run()
        assert not quantizer.weights
    else:
        quantizer.run()
        assert quantizer.weights


def test_the_settings_tell_the_group_only_where_it_matters() -> None:
    assert composed("bits=w4a16kv4").key_group is None
    assert composed("bits=w4a16", "cache.keys=channel").key_group is None
    settings = composed("bits=w4a16kv4", "cache.keys=channel", "cache.group=16")
    assert settings.key_group == 16
    assert settings.bits_name == "w4a16kv4c16"
