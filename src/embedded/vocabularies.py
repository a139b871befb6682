"""The two processors: a feature extractor and a byte-pair tokenizer each, in the form their real families save."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizer,
)

VOCABULARY = 640
CHUNK_SECONDS = 6
ALPHABET = "abcdefghijklmnopqrstuvwxyz' "
WHISPER_SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
MOONSHINE_SPECIALS = ("<unk>", "<s>", "</s>")


def whisper_processor(sentences: list[str]) -> WhisperProcessor:
    """Whisper's: log-mel frames of 6 s chunks; byte-level pieces that carry the space before them."""
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted({byte for letter in ALPHABET for byte, _ in bytes_.pre_tokenize_str(letter)})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = bytes_
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(WHISPER_SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((f" {text}" for text in sentences), trainer)
    model = _model(tokenizer)
    whisper = WhisperTokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        additional_special_tokens=list(WHISPER_SPECIALS),
        pad_token="<|endoftext|>",
        model_max_length=64,
    )
    return WhisperProcessor(WhisperFeatureExtractor(chunk_length=CHUNK_SECONDS), whisper)


def moonshine_processor(sentences: list[str]) -> Wav2Vec2Processor:
    """Moonshine's: raw samples with their mask; pieces marked with a leading U+2581, as in Llama's tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(MOONSHINE_SPECIALS),
        initial_alphabet=[*ALPHABET.strip(), "\u2581"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return Wav2Vec2Processor(extractor, fast)


def _model(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary and merges inside a trained tokenizer."""
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model
