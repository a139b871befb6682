"""The analytic MACs equal what torch counts while the model runs (eager attention, 2 FLOPs per MAC).

But for what it multiplies and masks, outside of sliding windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.profiling.bitops import (
    cross_kv_products,
    decoder_products,
    encoder_products,
    products,
    total_macs,
)
from src.profiling.cost_model import CostModel
from src.profiling.latency import noise
from src.profiling.passes import decode_step, prefill
from src.profiling.point_profile import parameter_count
from src.quant.fake import kv_layer_factory
from src.quant.structure import key_rotation
from tests.composed import composed
from tests.profiling.profiling_points import masked_macs, point_of, point_of_quantized, quantized
from tests.tiny import tiny_moonshine, tiny_parakeet, tiny_streaming, tiny_uneven_streaming, tiny_whisper

MODELS: dict[str, tuple[Callable[[], SpeechModel], float, int]] = {
    "small whisper": (tiny_whisper, 1.3, 209_664),
    "small whisper with language": (lambda: tiny_whisper(language="en"), 2.0, 209_664),
    "small moonshine": (tiny_moonshine, 1.3, 278_528),
    "small moonshine, attention bias, padded heads": (
        lambda: tiny_moonshine(attention_bias=True, pad_head_dim_to_multiple_of=24),
        3.0,
        279_680,
    ),
    "small streaming": (lambda: tiny_streaming(pad_head_dim_to_multiple_of=24, attention_bias=True), 1.3, 290_497),
    "small streaming, projected": (tiny_uneven_streaming, 1.301, 438_017),
    "small parakeet": (tiny_parakeet, 1.3, 165_473),
    "small parakeet, no biases, other kernels": (
        lambda: tiny_parakeet(
            attention_bias=False, convolution_bias=False, conv_kernel_size=5, subsampling_factor=4, num_mel_bins=128
        ),
        2.017,
        206_977,
    ),
}


QUANTIZED: dict[str, Callable[[], SpeechModel]] = {
    "small whisper": tiny_whisper,
    "small moonshine": tiny_moonshine,
    # no Hadamard matrix across 6 heads: the whole input of o is rotated, by two factors
    "whisper of 6 heads": lambda: tiny_whisper(
        d_model=96, encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=192, decoder_ffn_dim=192
    ),
    # grouped-query attention in the decoder, padded heads
    "moonshine of odd sizes": lambda: tiny_moonshine(
        hidden_size=96,
        intermediate_size=160,
        decoder_num_attention_heads=4,
        decoder_num_key_value_heads=2,
        encoder_num_attention_heads=4,
        encoder_num_key_value_heads=4,
        pad_head_dim_to_multiple_of=16,
    ),
    "streaming": tiny_streaming,
    "streaming, projected": tiny_uneven_streaming,
    "parakeet": tiny_parakeet,
}


def _counted_macs(call: Callable[[], Any]) -> tuple[Any, int]:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        result = call()
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return result, flops // 2


def _check_every_phase(speech: SpeechModel, point: CostModel, kv_layer: Callable[[], CacheLayerMixin]) -> None:
    speech.module.set_attn_implementation("eager")
    features = speech.features([noise(point.workload.seconds, speech.sampling_rate, seed=0)])
    encoded, encoder_macs = _counted_macs(lambda: speech.encode(features))
    assert encoded.states.shape[1] == point.frames
    masked = masked_macs(speech, point.frames)
    assert encoder_macs == total_macs(encoder_products(point)) + masked
    if not point.graph.decoder:
        _, head_macs = _counted_macs(lambda: speech.frame_logits(encoded))
        assert encoder_macs + head_macs == total_macs(products(point))
        return

    cache = speech.new_cache(kv_layer)
    tokens = torch.tensor([speech.prompt])
    _, prefill_macs = _counted_macs(lambda: speech.decode_step(tokens, encoded, cache))
    assert prefill_macs == total_macs((*cross_kv_products(point), *decoder_products(point, [prefill(point)])))

    decode_macs = 0
    for step in range(point.workload.tokens):
        _, macs = _counted_macs(lambda: speech.decode_step(torch.tensor([[3]]), encoded, cache))
        assert macs == total_macs(decoder_products(point, [decode_step(point, step + 1)]))
        decode_macs += macs
    assert encoder_macs + prefill_macs + decode_macs == total_macs(products(point)) + masked


@pytest.mark.parametrize("name", MODELS)
def test_every_phase_counts_what_torch_counts(name: str) -> None:
    build, seconds, parameters = MODELS[name]
    speech = build()
    point = point_of(speech, seconds, tokens=2)
    _check_every_phase(speech, point, DynamicLayer)
    assert sum(p.numel() for p in speech.module.parameters()) == parameters
    assert parameter_count(point) == parameters


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=rtn", "bits=w4a8"),
        ("method=quik", "bits=w4a8"),
        ("method=spqr", "bits=w4a8"),
        ("method=flatquant", "method.epochs=1", "bits=w4a8"),
        ("method=quarot_rtn", "bits=w4a16"),
        ("method=quarot_rtn", "bits=w4a8"),
        ("method=quarot_rtn", "bits=w4a8", "method.online=false", "method.keys=false"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", QUANTIZED)
def test_every_phase_of_a_quantized_model_counts_what_torch_counts(name: str, overrides: tuple[str, ...]) -> None:
    speech = QUANTIZED[name]()
    settings = composed(*overrides)
    if build_method(settings.method).needs.rotates_streams and not speech.graph.rotatable:
        pytest.skip("the method is refused")
    quantizer = quantized(speech, settings)
    point = point_of_quantized(speech, settings, quantizer, seconds=1.3, tokens=2)
    _check_every_phase(speech, point, kv_layer_factory(settings.kvbits, key_rotation(speech.module)))
    assert parameter_count(point) == sum(p.numel() for p in speech.module.parameters())
