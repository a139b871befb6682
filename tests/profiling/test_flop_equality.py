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
from tests.tiny import TINY

MODELS = {name: counted for tiny in TINY.values() for name, counted in tiny.counted.items()}
SHAPES = {name: build for tiny in TINY.values() for name, build in tiny.shapes.items()}


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
    counted = MODELS[name]
    speech = counted.build()
    point = point_of(speech, counted.seconds, tokens=2)
    _check_every_phase(speech, point, DynamicLayer)
    assert sum(p.numel() for p in speech.module.parameters()) == counted.parameters
    assert parameter_count(point) == counted.parameters


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
@pytest.mark.parametrize("name", SHAPES)
def test_every_phase_of_a_quantized_model_counts_what_torch_counts(name: str, overrides: tuple[str, ...]) -> None:
    speech = SHAPES[name]()
    settings = composed(*overrides)
    if build_method(settings.method).needs.rotates_streams and not speech.graph.rotatable:
        pytest.skip("the method is refused")
    quantizer = quantized(speech, settings)
    point = point_of_quantized(speech, settings, quantizer, seconds=1.3, tokens=2)
    _check_every_phase(speech, point, kv_layer_factory(settings.kvbits, key_rotation(speech.module)))
    assert parameter_count(point) == sum(p.numel() for p in speech.module.parameters())
