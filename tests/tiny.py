"""Random models of every family, small enough that a test runs in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MoonshineConfig, MoonshineStreamingConfig, ParakeetCTCConfig, WhisperConfig

from src.models.families import family_of
from src.models.moonshine.speech import MoonshineSpeech
from src.models.moonshine_streaming.speech import StreamingSpeech
from src.models.parakeet_ctc.speech import ParakeetSpeech
from src.models.whisper.speech import WhisperSpeech
from src.settings import ModelSettings

WHISPER: dict[str, Any] = {
    "vocab_size": 96,
    "num_mel_bins": 80,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_source_positions": 100,  # a window of 2 s
    "max_target_positions": 32,
    "decoder_start_token_id": 90,
    "bos_token_id": 89,
    "eos_token_id": 89,
    "pad_token_id": 89,
    "suppress_tokens": [1, 2],
    "begin_suppress_tokens": [3, 89],
}

MOONSHINE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 2,
    "decoder_num_attention_heads": 2,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}

STREAMING: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
STREAMING_ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "sliding_windows": [[6, 3], [6, 0]],
}

PARAKEET: dict[str, Any] = {"vocab_size": 97, "pad_token_id": 96}
PARAKEET_ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "subsampling_conv_channels": 32,
    "max_position_embeddings": 100,  # a window of 8 s
}


def tiny_whisper(seed: int = 0, language: str | None = None, **changes: Any) -> WhisperSpeech:
    """A Whisper with random weights; ``changes`` are configuration fields."""
    module = build_random(WhisperConfig(**{**WHISPER, **changes}), seed)
    return WhisperSpeech(module, name="tiny_whisper", language=language)


def tiny_moonshine(seed: int = 0, **changes: Any) -> MoonshineSpeech:
    """A Moonshine (with its gated decoder) with random weights; ``changes`` are configuration fields."""
    return MoonshineSpeech(build_random(MoonshineConfig(**{**MOONSHINE, **changes}), seed), name="tiny_moonshine")


def tiny_streaming(seed: int = 0, *, encoder: dict[str, Any] | None = None, **changes: Any) -> StreamingSpeech:
    """A Moonshine Streaming; ``encoder`` are fields of its encoder's configuration."""
    module = build_random(streaming_config(encoder=encoder, **changes), seed)
    family_of(module.config.model_type).prepare(module)
    return StreamingSpeech(module, name="tiny_streaming")


def tiny_uneven_streaming(seed: int = 0) -> StreamingSpeech:
    """As its small and medium size: an encoder wider than its attention and than the decoder, which a linear joins."""
    return tiny_streaming(seed, encoder={"hidden_size": 96, "head_dim": 32})


def tiny_parakeet(seed: int = 0, **encoder: Any) -> ParakeetSpeech:
    """A Parakeet CTC; ``encoder`` are fields of its encoder's configuration."""
    module = build_random(parakeet_config(**encoder), seed)
    family_of(module.config.model_type).prepare(module)
    return ParakeetSpeech(module, name="tiny_parakeet")


def parakeet_config(**encoder: Any) -> ParakeetCTCConfig:
    return ParakeetCTCConfig(**PARAKEET, encoder_config={**PARAKEET_ENCODER, **encoder})


def streaming_config(*, encoder: dict[str, Any] | None = None, **changes: Any) -> MoonshineStreamingConfig:
    return MoonshineStreamingConfig(
        **{**STREAMING, **changes, "encoder_config": {**STREAMING_ENCODER, **(encoder or {})}}
    )


def model_settings(source: Path | str, family: str = "whisper", **changes: Any) -> ModelSettings:
    """Settings of a checkpoint at ``source``; ``changes`` are fields of theirs."""
    fields = {"name": "tiny", "family": family, "source": str(source), "revision": None, "random_weights": False}
    return ModelSettings(**{**fields, "language": None, "architecture": {}, **changes})


def build_random(config: Any, seed: int) -> Any:
    """Weights and norms are made larger than an initialisation, so that layers matter and argmax is not a tie."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = family_of(config.model_type).module.from_config
        module = build(config, attn_implementation="sdpa", dtype=torch.float32)
        with torch.no_grad():
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm1d):
                    norm.running_mean.normal_(0, 0.3)
                    norm.running_var.uniform_(0.5, 2)
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return module
