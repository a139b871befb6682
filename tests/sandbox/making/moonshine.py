"""How the sandbox Moonshine is made."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from tests.sandbox.making.recipe import ALPHABET, VOCABULARY, Recipe, Schedule
from tests.sandbox.making.synthesis import RATE

SPECIALS = ("<unk>", "<s>", "</s>")
TOKENS_PER_SECOND = 13  # the bound against loops; 6.5 in the published models, whose pieces are longer


class MoonshineRecipe(Recipe):
    """Moonshine: samples in, 41.7 encoder frames a second, rotary positions, a gated decoder MLP."""

    needs_padding = False
    prompt_length = 1  # <s>
    schedule = Schedule(steps=5_150, decay=600)

    @staticmethod
    def make_processor(sentences: list[str]) -> Wav2Vec2Processor:
        """Moonshine's: raw samples with their mask; pieces marked with a leading U+2581, as in Llama's tokenizer."""
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIALS),
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

    def build(self) -> Any:
        """As UsefulSensors/moonshine-tiny is configured, but for the sizes."""
        config = MoonshineConfig(
            vocab_size=VOCABULARY,
            hidden_size=self.width,
            intermediate_size=self.inner,
            encoder_num_hidden_layers=self.encoder_layers,
            decoder_num_hidden_layers=self.decoder_layers,
            encoder_num_attention_heads=self.heads,
            decoder_num_attention_heads=self.heads,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            decoder_start_token_id=1,
            max_tokens_per_second=TOKENS_PER_SECOND,
        )
        model = MoonshineForConditionalGeneration(config)
        model.generation_config = GenerationConfig(
            bos_token_id=1, eos_token_id=2, pad_token_id=2, decoder_start_token_id=1, max_length=self.max_tokens
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
