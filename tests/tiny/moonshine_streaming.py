"""Moonshine Streamings with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import MoonshineStreamingConfig, Wav2Vec2FeatureExtractor

from src.models.moonshine_streaming.speech import StreamingSpeech
from tests.tiny.declared import Counted, Tiny, build_random, prepared
from tests.tiny.moonshine import words

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
UNEVEN = {"hidden_size": 96, "head_dim": 32}  # of an encoder wider than its attention and than the decoder


def streaming_config(*, encoder: dict[str, Any] | None = None, **changes: Any) -> MoonshineStreamingConfig:
    """``encoder`` are fields of its encoder's configuration."""
    return MoonshineStreamingConfig(
        **{**STREAMING, **changes, "encoder_config": {**STREAMING_ENCODER, **(encoder or {})}}
    )


def tiny_streaming(seed: int = 0, *, encoder: dict[str, Any] | None = None, **changes: Any) -> StreamingSpeech:
    return StreamingSpeech(prepared(streaming_config(encoder=encoder, **changes), seed), name="tiny_streaming")


def tiny_uneven_streaming(seed: int = 0) -> StreamingSpeech:
    """As its small and medium size, where a linear joins encoder and decoder."""
    return tiny_streaming(seed, encoder=UNEVEN)


def streaming_checkpoint(folder: Path, **changes: Any) -> Path:
    """``changes`` are those of :func:`streaming_config`; without, it is as uneven as :func:`tiny_uneven_streaming`."""
    module = build_random(streaming_config(**{"encoder": UNEVEN, **changes}), 3)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    for part in (module, extractor, words(STREAMING["vocab_size"])):
        part.save_pretrained(folder)
    return folder


TINY = Tiny(
    build=tiny_uneven_streaming,
    checkpoint=streaming_checkpoint,
    counted={
        "small streaming": Counted(
            lambda: tiny_streaming(pad_head_dim_to_multiple_of=24, attention_bias=True), 1.3, 290_497
        ),
        "small streaming, projected": Counted(tiny_uneven_streaming, 1.301, 438_017),
    },
    shapes={"streaming-64": tiny_streaming, "streaming-96-64": tiny_uneven_streaming},
    looks_at_values=True,
)
