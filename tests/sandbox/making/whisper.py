"""How the sandbox Whisper is made."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from tests.sandbox.making.features import HOP, log_mel
from tests.sandbox.making.recipe import ALPHABET, CHUNK_SECONDS, VOCABULARY, Recipe, Schedule
from tests.sandbox.making.synthesis import RATE

SPECIALS = (
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


class WhisperRecipe(Recipe):
    """English-only Whisper over 6 s chunks."""

    needs_padding = True
    prompt_length = 2  # <|startoftranscript|> <|notimestamps|>
    schedule = Schedule(steps=5_000, decay=650)

    @staticmethod
    def make_processor(sentences: list[str]) -> WhisperProcessor:
        """Whisper's: log-mel frames of 6 s chunks; byte-level pieces that carry the space before them."""
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted({byte for letter in ALPHABET for byte, _ in bytes_.pre_tokenize_str(letter)})
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = bytes_
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(SPECIALS), initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator((f" {text}" for text in sentences), trainer)
        model = json.loads(tokenizer.to_str())["model"]
        whisper = WhisperTokenizer(
            vocab=model["vocab"],
            merges=[tuple(pair) for pair in model["merges"]],
            additional_special_tokens=list(SPECIALS),
            pad_token="<|endoftext|>",
            model_max_length=64,
        )
        return WhisperProcessor(WhisperFeatureExtractor(chunk_length=CHUNK_SECONDS), whisper)

    def build(self) -> Any:
        """As openai/whisper-tiny.en is configured, but for the sizes and the token ids."""
        ids = self.processor.tokenizer.convert_tokens_to_ids
        end, start = ids("<|endoftext|>"), ids("<|startoftranscript|>")
        config = WhisperConfig(
            vocab_size=VOCABULARY,
            d_model=self.width,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_ffn_dim=self.inner,
            decoder_ffn_dim=self.inner,
            max_source_positions=CHUNK_SECONDS * RATE // HOP // 2,
            max_target_positions=self.max_tokens,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=start,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
        model = WhisperForConditionalGeneration(config)
        model.generation_config = GenerationConfig(
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=start,
            no_timestamps_token_id=ids("<|notimestamps|>"),
            prev_sot_token_id=ids("<|startofprev|>"),
            is_multilingual=False,
            return_timestamps=False,
            begin_suppress_tokens=[ids("\u0120"), end],
            suppress_tokens=[i for i in self.processor.tokenizer.all_special_ids if i != end],
            max_length=self.max_tokens,
        )
        return model

    def sequence(self, text: str) -> list[int]:
        """Start, no timestamps, the pieces of the text, end."""
        return list(self.processor.tokenizer(f" {text}").input_ids)

    def encode(self, model: Any, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The encoder on a spectrogram of any length: the real one insists on a full chunk."""
        encoder = model.model.encoder
        hidden = nn.functional.gelu(encoder.conv1(log_mel(audio)))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
        valid = (lengths // (2 * HOP) + 1).clamp(max=hidden.shape[1])
        return encoder.layer_norm(hidden), valid, None

    def generate(self, model: Any, audio: list[Tensor]) -> list[str]:
        """One batch, every utterance padded to the full chunk."""
        extract = self.processor.feature_extractor
        features = extract([wave.numpy() for wave in audio], sampling_rate=RATE, return_tensors="pt").input_features
        tokens = model.generate(features.to(model.dtype))
        return list(self.processor.batch_decode(tokens, skip_special_tokens=True))
