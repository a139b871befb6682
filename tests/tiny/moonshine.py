"""Moonshines (with their gated decoder) with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from transformers import MoonshineConfig, PreTrainedTokenizerFast

from src.models.moonshine.speech import MoonshineSpeech
from tests.tiny.declared import Counted, Tiny, build_random

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


def tiny_moonshine(seed: int = 0, **changes: Any) -> MoonshineSpeech:
    """``changes`` are configuration fields."""
    return MoonshineSpeech(build_random(MoonshineConfig(**{**MOONSHINE, **changes}), seed), name="tiny_moonshine")


def tiny_uneven_moonshine() -> MoonshineSpeech:
    """Grouped-query attention in the decoder, padded heads."""
    return tiny_moonshine(
        hidden_size=96,
        intermediate_size=160,
        decoder_num_attention_heads=4,
        decoder_num_key_value_heads=2,
        encoder_num_attention_heads=4,
        encoder_num_key_value_heads=4,
        pad_head_dim_to_multiple_of=16,
    )


def words(vocabulary: int = 4) -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens that Moonshine's checkpoints have, and a word for each of the others."""
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3} | {f"w{number}": number for number in range(4, vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")), bos_token="<s>", eos_token="</s>"
    )


def moonshine_checkpoint(folder: Path) -> Path:
    speech = tiny_moonshine()
    for part in (speech.module, speech._extractor, words()):
        part.save_pretrained(folder)
    return folder


TINY = Tiny(
    build=tiny_moonshine,
    checkpoint=moonshine_checkpoint,
    counted={
        "small moonshine": Counted(tiny_moonshine, 1.3, 278_528),
        "small moonshine, attention bias, padded heads": Counted(
            lambda: tiny_moonshine(attention_bias=True, pad_head_dim_to_multiple_of=24), 3.0, 279_680
        ),
    },
    shapes={"moonshine-64": tiny_moonshine, "moonshine of odd sizes": tiny_uneven_moonshine},
    heads={  # of 36 and 52, as in the published models, and of 18, for which there is no Hadamard matrix
        "moonshine-72": lambda: tiny_moonshine(hidden_size=72, intermediate_size=144),
        "moonshine-104": lambda: tiny_moonshine(hidden_size=104, intermediate_size=416),
        "moonshine-54": lambda: tiny_moonshine(
            hidden_size=54, intermediate_size=108, encoder_num_attention_heads=3, decoder_num_attention_heads=3
        ),
    },
    bits=("w3a16", "w4a8"),
    looks_at_values=True,
)
