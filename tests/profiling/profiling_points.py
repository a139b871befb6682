"""The smallest Moonshine whose costs fit on one page, and points built on models."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import MoonshineConfig

from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.models.families import dimensions_of
from src.models.graph import ModelGraph
from src.models.moonshine.graph import moonshine_graph
from src.models.speech import SpeechModel
from src.profiling.cost_model import CostModel, LinearBits, Workload
from src.quant.structure import Edit
from src.settings import Settings
from src.stages.reference import linear_bits
from tests.calib.clips import noise_calibration

# 3 frames: conv3 makes 3 from 7, conv2 makes 7 from 25, conv1 makes 25 from 127 + 24 * 64 = 1663 samples.
THREE_FRAMES = 1663 / 16_000


def page_config() -> MoonshineConfig:
    """Width 4, one head, ffn 8, one block each, 10 words."""
    return MoonshineConfig(
        vocab_size=10,
        hidden_size=4,
        intermediate_size=8,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=1,
        decoder_num_attention_heads=1,
        max_position_embeddings=8,
        eos_token_id=2,
        pad_token_id=2,
    )


def page_point(
    weight_bits: int = 16, activation_bits: int = 16, kv_bits: int = 16, edits: tuple[Edit, ...] = ()
) -> CostModel:
    """1 prompt token and 2 text tokens: 3 passes, 3 positions, 1 + 2 + 3 = 6 cache positions attended."""
    config = page_config()
    graph = moonshine_graph(config)
    bits = uniform_bits(graph, weight_bits, activation_bits)
    workload = Workload(THREE_FRAMES, tokens=2, prompt=1)
    return CostModel(dimensions_of(config), graph, workload, bits, kv_bits, edits)


def uniform_bits(graph: ModelGraph, weight_bits: int, activation_bits: int) -> dict[str, LinearBits]:
    """Every linear alike: per-channel grids with a 2-byte scale and a 1-byte zero point below 16 bits."""
    overhead = 3 if weight_bits < 16 else 0
    return {
        linear.path: LinearBits(
            linear.out_features * (linear.in_features * weight_bits // 8 + overhead), weight_bits, activation_bits
        )
        for linear in graph.linears
    }


def point_of(
    speech: SpeechModel,
    seconds: float = 1.0,
    tokens: int = 5,
    bits: Mapping[str, LinearBits] | None = None,
    kv_bits: int = 16,
) -> CostModel:
    """A point of a loaded model."""
    workload = Workload(seconds, tokens, len(speech.prompt))
    return CostModel(dimensions_of(speech.module.config), speech.graph, workload, bits or {}, kv_bits)


def masked_macs(speech: SpeechModel, frames: int) -> int:
    """What transformers multiplies and masks in an encoder's attention outside of its windows, found pair by pair."""
    config = getattr(speech.module.config, "encoder_config", None)
    if not hasattr(config, "sliding_windows"):
        return 0
    masked = sum(
        not (query - past < key <= query + max(ahead - 1, 0))
        for past, ahead in config.sliding_windows
        for query in range(frames)
        for key in range(frames)
    )
    return 2 * config.num_attention_heads * config.head_dim * masked


def quantized(speech: SpeechModel, settings: Settings) -> Quantizer:
    """What has quantized ``speech``, in place, with the method of ``settings``."""
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


def point_of_quantized(
    speech: SpeechModel, settings: Settings, quantizer: Quantizer, seconds: float = 1.0, tokens: int = 5
) -> CostModel:
    """The point of a quantized model as the profile stage makes it."""
    bits = linear_bits(quantizer.rows, input_bits(speech.graph, settings), static=settings.static_inputs)
    workload = Workload(seconds, tokens, len(speech.prompt))
    dimensions = dimensions_of(speech.module.config)
    return CostModel(dimensions, speech.graph, workload, bits, settings.kvbits, tuple(quantizer.edits))
