"""Random Whisper, Moonshine and Moonshine Streaming models small enough that a test runs in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSpeechSeq2Seq, MoonshineConfig, MoonshineStreamingConfig, WhisperConfig

from src.models.moonshine.speech import MoonshineSpeech
from src.models.moonshine_streaming.parts import prepare
from src.models.moonshine_streaming.speech import StreamingSpeech
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
    prepare(module)
    return StreamingSpeech(module, name="tiny_streaming")


def tiny_uneven_streaming(seed: int = 0) -> StreamingSpeech:
    """As its small and medium size: an encoder wider than its attention and than the decoder, which a linear joins."""
    return tiny_streaming(seed, encoder={"hidden_size": 96, "head_dim": 32})


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
        module = AutoModelForSpeechSeq2Seq.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return module
