"""The two architectures at their embedded size, and what training needs to know of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from src.embedded.features import HOP, log_mel
from src.embedded.synthesis import RATE
from src.embedded.vocabularies import CHUNK_SECONDS, VOCABULARY, moonshine_processor, whisper_processor

WIDTH, HEADS, INNER = 192, 6, 768
ENCODER_LAYERS, DECODER_LAYERS = 4, 3
MAX_TOKENS = 64
TOKENS_PER_SECOND = 13  # Moonshine's bound against loops; 6.5 in the published models, whose pieces are longer


class Family(ABC):
    """One architecture: how to build it, and its forward pass in training form.

    ``needs_padding``: whether the real model always sees audio padded to ``CHUNK_SECONDS``; ``prompt_length``: how many
    tokens are given to the decoder before it predicts the first piece of text.
    """

    needs_padding: ClassVar[bool]
    prompt_length: ClassVar[int]
    width: ClassVar[int] = WIDTH

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    @staticmethod
    @abstractmethod
    def make_processor(sentences: list[str]) -> Any:
        """The processor, its tokenizer trained on ``sentences``."""

    @abstractmethod
    def build(self) -> Any:
        """An untrained model with its generation settings."""

    @abstractmethod
    def sequence(self, text: str) -> list[int]:
        """Token ids from the first decoder input to the end token."""

    @abstractmethod
    def encode(self, model: Any, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encoder states (batch, frames, width), valid frames (batch,), and the mask the decoder takes, if any."""

    @abstractmethod
    def generate(self, model: Any, audio: list[Tensor]) -> list[str]:
        """Greedy transcripts through plain transformers, as a user would get them."""

    def decode(self, model: Any, states: Tensor, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """Next-token logits (batch, length, vocabulary) for decoder input ``tokens`` (batch, length)."""
        arguments = {} if mask is None else {"encoder_attention_mask": mask}
        hidden = model.model.decoder(input_ids=tokens, encoder_hidden_states=states, use_cache=False, **arguments)
        logits: Tensor = model.proj_out(hidden.last_hidden_state)
        return logits


class Whisper(Family):
    """English-only Whisper over 6 s chunks."""

    needs_padding = True
    prompt_length = 2  # <|startoftranscript|> <|notimestamps|>
    make_processor = staticmethod(whisper_processor)

    def build(self) -> Any:
        """As openai/whisper-tiny.en is configured, but for the sizes and the token ids."""
        ids = self.processor.tokenizer.convert_tokens_to_ids
        end, start = ids("<|endoftext|>"), ids("<|startoftranscript|>")
        config = WhisperConfig(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            encoder_layers=ENCODER_LAYERS,
            decoder_layers=DECODER_LAYERS,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=INNER,
            decoder_ffn_dim=INNER,
            max_source_positions=CHUNK_SECONDS * RATE // HOP // 2,
            max_target_positions=MAX_TOKENS,
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
            max_length=MAX_TOKENS,
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


class Moonshine(Family):
    """Moonshine: samples in, 41.7 encoder frames a second, rotary positions, a gated decoder MLP."""

    needs_padding = False
    prompt_length = 1  # <s>
    make_processor = staticmethod(moonshine_processor)

    def build(self) -> Any:
        """As UsefulSensors/moonshine-tiny is configured, but for the sizes."""
        config = MoonshineConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            encoder_num_hidden_layers=ENCODER_LAYERS,
            decoder_num_hidden_layers=DECODER_LAYERS,
            encoder_num_attention_heads=HEADS,
            decoder_num_attention_heads=HEADS,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            decoder_start_token_id=1,
            max_tokens_per_second=TOKENS_PER_SECOND,
        )
        model = MoonshineForConditionalGeneration(config)
        model.generation_config = GenerationConfig(
            bos_token_id=1, eos_token_id=2, pad_token_id=2, decoder_start_token_id=1, max_length=MAX_TOKENS
        )
        return model

    def sequence(self, text: str) -> list[int]:
        """Start, the pieces of the text, end."""
        tokenizer = self.processor.tokenizer
        return [*tokenizer(text).input_ids, tokenizer.eos_token_id]

    def encode(self, model: Any, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The real encoder, with its mask."""
        mask = (torch.arange(audio.shape[1]) < lengths[:, None]).long()
        output = model.model.encoder(input_values=audio, attention_mask=mask)
        states: Tensor = output.last_hidden_state
        valid = (lengths // 384 + 1).clamp(max=states.shape[1])
        return states, valid, output.attention_mask

    def generate(self, model: Any, audio: list[Tensor]) -> list[str]:
        """One by one, since the front-end's GroupNorm would see the padding of a batch."""
        texts = []
        for wave in audio:
            limit = self.prompt_length + len(wave) * TOKENS_PER_SECOND // RATE + 2
            tokens = model.generate(input_values=wave[None].to(model.dtype), max_length=limit)
            texts.append(self.processor.tokenizer.decode(tokens[0], skip_special_tokens=True))
        return texts


FAMILIES: dict[str, type[Family]] = {"whisper": Whisper, "moonshine": Moonshine}
