"""Whispers with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

from src.models.whisper.speech import WhisperSpeech
from tests.tiny.declared import Counted, Tiny, build_random

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
SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")


def tiny_whisper(seed: int = 0, language: str | None = None, **changes: Any) -> WhisperSpeech:
    """``changes`` are configuration fields."""
    module = build_random(WhisperConfig(**{**WHISPER, **changes}), seed)
    return WhisperSpeech(module, name="tiny_whisper", language=language)


def tiny_whisper_of_6_heads() -> WhisperSpeech:
    """No Hadamard matrix across the heads: the whole input of o is rotated, by two factors."""
    heads = {"encoder_attention_heads": 6, "decoder_attention_heads": 6}
    return tiny_whisper(d_model=96, encoder_ffn_dim=192, decoder_ffn_dim=192, **heads)


def whisper_checkpoint(folder: Path) -> Path:
    """An English-only checkpoint: letters, then the special tokens at the ids of ``WHISPER``."""
    letters = {chr(33 + i): i for i in range(WHISPER["eos_token_id"])}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[], additional_special_tokens=list(SPECIALS))
    end, start, _, _, no_timestamps = tokenizer.convert_tokens_to_ids(list(SPECIALS))
    speech = tiny_whisper()
    speech.module.generation_config = GenerationConfig(
        decoder_start_token_id=start, eos_token_id=end, no_timestamps_token_id=no_timestamps, is_multilingual=False
    )
    for part in (speech.module, speech._extractor, tokenizer):
        part.save_pretrained(folder)
    return folder


TINY = Tiny(
    build=tiny_whisper,
    checkpoint=whisper_checkpoint,
    counted={
        "small whisper": Counted(tiny_whisper, 1.3, 209_664),
        "small whisper with language": Counted(lambda: tiny_whisper(language="en"), 2.0, 209_664),
    },
    shapes={"whisper-64": tiny_whisper, "whisper-96": tiny_whisper_of_6_heads},
    bits=("w3a16", "w4a8"),
)
