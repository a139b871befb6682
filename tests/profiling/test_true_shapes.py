"""Every model of ``conf/model`` at its true shape: the counts are those of torch, eager attention, 2 FLOPs per MAC.

Outside of sliding windows torch multiplies and masks, which is not counted. Models run on the meta device, which has
shapes and no weights; but where masks look at values, for real.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from src.models.families import dimensions_of
from src.models.loading import load, load_config, load_graph
from src.models.speech import SpeechModel
from src.profiling.bitops import cross_kv_products, decoder_products, encoder_products, products, total_macs
from src.profiling.cost_model import CostModel, Workload
from src.profiling.latency import noise
from src.profiling.passes import decode_step, prefill
from src.profiling.point_profile import parameter_count
from src.project import ROOT
from tests.composed import composed
from tests.profiling.profiling_points import masked_macs
from tests.tiny import TINY

MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
SECONDS, TOKENS = 3.3, 2


def _at_true_shape(name: str) -> tuple[SpeechModel, CostModel]:
    settings = composed(f"model={name}", "model.random_weights=true").model
    device = "cpu" if TINY[settings.family].looks_at_values else "meta"
    with torch.device(device):
        speech = load(settings, device, seed=0)
    speech.module.set_attn_implementation("eager")  # torch does not count fused attention on a CPU
    dimensions = dimensions_of(load_config(settings))
    return speech, CostModel(dimensions, load_graph(settings), Workload(SECONDS, TOKENS, len(speech.prompt)), {})


def _counted(device: torch.device, call: Callable[[], Any]) -> tuple[Any, int]:
    with torch.inference_mode(), device, FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops() // 2


@pytest.mark.parametrize("name", MODELS)
def test_every_phase_of_every_model_counts_what_torch_counts(name: str) -> None:
    speech, point = _at_true_shape(name)
    device = speech.device
    features = [each.to(device) for each in speech.features([noise(SECONDS, speech.sampling_rate, seed=0)])]
    encoded, encoder = _counted(device, lambda: speech.encode(features))
    assert encoded.states.shape[1] == point.frames
    masked = masked_macs(speech, point.frames)
    assert encoder == total_macs(encoder_products(point)) + masked
    assert parameter_count(point) == sum(parameter.numel() for parameter in speech.module.parameters())
    if not point.graph.decoder:
        _, head = _counted(device, lambda: speech.frame_logits(encoded))
        assert encoder + head == total_macs(products(point))
        return

    cache = speech.new_cache()
    prompt = torch.zeros(1, len(speech.prompt), dtype=torch.long, device=device)
    _, first = _counted(device, lambda: speech.decode_step(prompt, encoded, cache))
    assert first == total_macs((*cross_kv_products(point), *decoder_products(point, [prefill(point)])))

    steps = [_counted(device, lambda: speech.decode_step(prompt[:, :1], encoded, cache))[1] for _ in range(TOKENS)]
    assert steps == [total_macs(decoder_products(point, [decode_step(point, number)])) for number in (1, 2)]
    assert encoder + first + sum(steps) == total_macs(products(point)) + masked
