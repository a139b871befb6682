"""Moonshine: a :class:`~src.models.speech.SpeechModel` around transformers' implementation.

The front-end normalises over time (``GroupNorm(1, d)``), so audio padding would change every frame of a clip. It is
therefore run on each utterance at its own length; padding and the mask start at the first encoder block.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.cache_utils import EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from src.models.cache_argument import cached
from src.models.moonshine.graph import moonshine_graph
from src.models.speech import Encoded, SpeechModel

_TOKENS_PER_SECOND = 6.5  # the authors' bound against repetition loops, for their 32k vocabulary
_SECONDS = 30  # the longest clips that the published models were trained on (arXiv 2410.15608)


class MoonshineSpeech(SpeechModel):
    def __init__(
        self,
        module: PreTrainedModel,
        *,
        name: str,
        extractor: Wav2Vec2FeatureExtractor | None = None,
        tokenizer: Any | None = None,
    ) -> None:
        """Without an extractor waveforms are taken as they are, which is what the published checkpoints do."""
        super().__init__(
            module,
            self._graph(module.config),
            name=name,
            prompt=(module.config.decoder_start_token_id,),
            extractor=extractor or Wav2Vec2FeatureExtractor(do_normalize=False),
            tokenizer=tokenizer,
        )
        self._shortest = self._receptive_field(module.model.encoder)

    _graph = staticmethod(moonshine_graph)

    @property
    def window(self) -> int:
        """What the models were trained on, or less where the decoder's positions hold fewer tokens than its bound."""
        held = math.ceil((self._most - 1) * self.sampling_rate / self._rate) - 1
        return min(held, _SECONDS * self.sampling_rate)

    def features(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """Waveforms ``[samples]``, zero-padded to the front-end's receptive field where they are shorter."""
        return [self._waveform(waveform) for waveform in waveforms]

    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """Front-end an utterance at a time; see :meth:`SpeechModel.encoder_inputs`."""
        frames = [self._frontend(waveform.to(self.device, self.module.dtype)) for waveform in features]
        hidden = pad_sequence(frames, batch_first=True)
        lengths = torch.tensor([len(frame) for frame in frames], device=self.device)
        positions = torch.arange(hidden.shape[1], device=self.device).unsqueeze(0)
        mask = positions < lengths.unsqueeze(1)
        arguments = {
            "attention_mask": create_bidirectional_mask(
                config=self.module.config, inputs_embeds=hidden, attention_mask=mask, encoder_hidden_states=hidden
            ),
            "position_ids": positions,
            "position_embeddings": self.module.model.encoder.rotary_emb(hidden, position_ids=positions),
        }
        return hidden, arguments, mask

    def decoder_inputs(self, tokens: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Any]]:
        """Embedding, masks and rotary positions; see :meth:`SpeechModel.decoder_inputs`."""
        return self._decoder_inputs(tokens, encoded, None)

    def _decoder_inputs(
        self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """As :meth:`decoder_inputs`, of tokens that continue those in ``cache``."""
        config, decoder = self.module.config, self.module.model.decoder
        hidden = decoder.embed_tokens(tokens)
        past = 0 if cache is None else cache.get_seq_length()
        positions = past + torch.arange(tokens.shape[1], device=self.device).unsqueeze(0)
        causal = create_causal_mask(
            config=config, inputs_embeds=hidden, attention_mask=None, **cached(create_causal_mask, cache)
        )
        cross = create_bidirectional_mask(
            config=config,
            inputs_embeds=hidden,
            attention_mask=encoded.mask,
            encoder_hidden_states=encoded.states,
        )
        return hidden, {
            "attention_mask": causal,
            "encoder_hidden_states": encoded.states,
            "encoder_attention_mask": cross,
            "position_ids": positions,
            "position_embeddings": decoder.rotary_emb(hidden, position_ids=positions),
            "use_cache": cache is not None,
        }

    def max_new_tokens(self, samples: int) -> int:
        """The authors' 6.5 tokens a second plus 2, within the positions the model was configured for.

        A checkpoint with a smaller vocabulary, hence more tokens a second, states its bound as
        ``max_tokens_per_second`` in config.json.
        """
        return min(int(samples * self._rate // self.sampling_rate + 2), self._most)

    @property
    def _rate(self) -> float:
        """Most tokens a second."""
        return float(getattr(self.module.config, "max_tokens_per_second", _TOKENS_PER_SECOND))

    @property
    def _most(self) -> int:
        """Decoder positions after the prompt."""
        positions: int = self.module.config.max_position_embeddings
        limit = getattr(self.module.generation_config, "max_length", None) or positions
        return min(positions, int(limit)) - len(self.prompt)

    def limits(self) -> dict[str, Any]:
        most = {"max_tokens": self._most, "tokens_per_second": self._rate}
        return {**most, "window": self.window, "shortest": self._shortest}

    def decoder_states(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None = None) -> Tensor:
        output = self.module.model.decoder(
            input_ids=tokens,
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=encoded.mask,
            use_cache=cache is not None,
            **cached(type(self.module.model.decoder).forward, cache),
        )
        states: Tensor = output.last_hidden_state
        return states

    def _waveform(self, waveform: np.ndarray) -> Tensor:
        batch = self._extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="pt")
        samples: Tensor = batch["input_values"][0]
        return torch.nn.functional.pad(samples, (0, max(0, self._shortest - len(samples))))

    def _frontend(self, waveform: Tensor) -> Tensor:
        """Convolutions of one utterance: ``[samples]`` to ``[frames, d]``."""
        encoder = self.module.model.encoder
        hidden = torch.tanh(encoder.conv1(waveform[None, None]))
        hidden = encoder.groupnorm(hidden)
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden))
        hidden = torch.nn.functional.gelu(encoder.conv3(hidden))
        return hidden[0].T

    @staticmethod
    def _receptive_field(encoder: torch.nn.Module) -> int:
        """Samples the front-end needs to make one frame."""
        samples = 1
        for name in ("conv3", "conv2", "conv1"):
            conv: Any = encoder.get_submodule(name)
            samples = (samples - 1) * conv.stride[0] + conv.kernel_size[0]
        return samples
