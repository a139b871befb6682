"""Parakeets for CTC with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import ParakeetCTCConfig, ParakeetTokenizer

from src.models.parakeet_ctc.speech import ParakeetSpeech
from tests.tiny.declared import Counted, Tiny, build_random, prepared

PARAKEET: dict[str, Any] = {"vocab_size": 97, "pad_token_id": 96}
PARAKEET_ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "subsampling_conv_channels": 32,
    "max_position_embeddings": 100,  # a window of 8 s
}
EXTRACTOR = {"feature_extractor_type": "ParakeetFeatureExtractor", "feature_size": 80, "sampling_rate": 16_000}


def parakeet_config(**encoder: Any) -> ParakeetCTCConfig:
    """``encoder`` are fields of its encoder's configuration."""
    return ParakeetCTCConfig(**PARAKEET, encoder_config={**PARAKEET_ENCODER, **encoder})


def tiny_parakeet(seed: int = 0, **encoder: Any) -> ParakeetSpeech:
    return ParakeetSpeech(prepared(parakeet_config(**encoder), seed), name="tiny_parakeet")


def smallest_parakeet(seed: int = 0) -> ParakeetSpeech:
    """Its blocks have more linears than others."""
    return tiny_parakeet(seed, hidden_size=32, intermediate_size=64, num_hidden_layers=1)


def numbered_words() -> ParakeetTokenizer:
    """A word ``w7`` for the token 7, and so on; the last token is the blank."""
    blank = PARAKEET["pad_token_id"]
    words = {f"w{number}": number for number in range(blank)} | {"<pad>": blank}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    return ParakeetTokenizer(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="w0")


def parakeet_checkpoint(folder: Path, module: Any = None) -> Path:
    """Of ``module``, or of one with random weights."""
    folder.mkdir(exist_ok=True)
    (module or build_random(parakeet_config(), 3)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR), encoding="utf-8")
    numbered_words().save_pretrained(folder)
    return folder


TINY = Tiny(
    build=smallest_parakeet,
    checkpoint=parakeet_checkpoint,
    counted={
        "small parakeet": Counted(tiny_parakeet, 1.3, 165_473),
        "small parakeet, no biases, other kernels": Counted(
            lambda: tiny_parakeet(
                attention_bias=False, convolution_bias=False, conv_kernel_size=5, subsampling_factor=4, num_mel_bins=128
            ),
            2.017,
            206_977,
        ),
    },
    shapes={"parakeet": tiny_parakeet},
)
