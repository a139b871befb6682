"""Whisper: a :class:`~src.models.speech.SpeechModel` around transformers' implementation.

Clips are padded with silence to one window (30 s for the published checkpoints), so every utterance has the same
number of encoder frames and all of them are real to the decoder: Whisper was trained without an attention mask.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, WhisperConfig, WhisperFeatureExtractor
from transformers.cache_utils import EncoderDecoderCache
from transformers.masking_utils import create_causal_mask

from src.models.cache_argument import cached
from src.models.speech import Encoded, SpeechModel, TimeTokens
from src.models.whisper.graph import whisper_graph
from src.models.whisper.prompt import checkpoint_prompt, times_are_tokens
from src.models.whisper.window import check_window

_log = logging.getLogger(__name__)
_FRONTEND_STRIDE = 2  # conv1 keeps the mel frame rate, conv2 halves it
_LATEST_START = 50  # time tokens of 0.02 s: speech begins within 1 s, the default of the authors' decoder


class WhisperSpeech(SpeechModel):
    """Whisper of any size, English-only or multilingual."""

    begins = " "

    def __init__(
        self,
        module: PreTrainedModel,
        *,
        name: str,
        language: str | None,
        extractor: WhisperFeatureExtractor | None = None,
        tokenizer: Any | None = None,
    ) -> None:
        """Without a tokenizer the prompt has the true length but arbitrary ids: for random weights.

        Raises:
            UserError: the language does not fit the checkpoint, or the extractor's window does not fit the encoder.
        """
        config = module.config
        vocabulary: dict[str, int] = {} if tokenizer is None else tokenizer.get_vocab()
        self._names = {number: token for token, number in vocabulary.items()}
        super().__init__(
            module,
            whisper_graph(config),
            name=name,
            prompt=checkpoint_prompt(module.generation_config, config, vocabulary, language),
            extractor=extractor or _default_extractor(config),
            tokenizer=tokenizer,
        )
        check_window(self._extractor, config)

    @property
    def window(self) -> int:
        """The samples that clips are padded to."""
        samples: int = self._extractor.n_samples
        return samples

    def fits_half(self, samples: int) -> bool:
        """With a second of silence behind it: what Whisper hears cut off, it repeats."""
        return samples + self.sampling_rate <= self.window // 2

    def heard_share(self, features: Tensor, samples: int) -> float:
        """With half a second of silence behind it: frames there tell that the clip has ended."""
        padded: int = features.shape[-1] * self._extractor.hop_length
        return min(1.0, (samples + self.sampling_rate // 2) / padded)

    @property
    def time_tokens(self) -> TimeTokens | None:
        """What the checkpoint writes times with; None where its vocabulary ends before they begin."""
        generation, config = self.module.generation_config, self.module.config
        no_timestamps = getattr(generation, "no_timestamps_token_id", None)
        if no_timestamps is None or config.vocab_size <= no_timestamps + 1 + config.max_source_positions:
            return None
        first = no_timestamps + 1
        if not times_are_tokens(range(first, first + config.max_source_positions + 1), self._names):
            return None
        latest_start = getattr(generation, "max_initial_timestamp_index", None)
        prompt = self.prompt[:-1]
        return TimeTokens(
            prompt=prompt,
            first=first,
            last=first + config.max_source_positions,
            latest_start=_LATEST_START if latest_start is None else latest_start,
            cap=self._cap(prompt),
            frames=_FRONTEND_STRIDE,
        )

    def features(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """Log-mel spectrograms ``[mels, frames]`` of one window each; longer clips are cut, with a warning."""
        window = self._extractor.n_samples
        cut = sum(len(waveform) > window for waveform in waveforms)
        if cut:
            _log.warning("%d clips are longer than the %g s window and are cut to it", cut, window / self.sampling_rate)
        return [self._log_mel(waveform) for waveform in waveforms]

    def whole_features(self, waveform: np.ndarray) -> Tensor:
        """Log-mel spectrogram ``[mels, frames]`` of audio of any length, neither cut nor padded."""
        return self._extracted(waveform, truncation=False, padding="longest")

    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """Convolutions and positions; see :meth:`SpeechModel.encoder_inputs`."""
        encoder = self.module.model.encoder
        mels = torch.stack(features).to(self.device, self.module.dtype)
        hidden = torch.nn.functional.gelu(encoder.conv1(mels))
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return hidden, {"attention_mask": None}, mask

    def decoder_inputs(self, tokens: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Any]]:
        """Embedding and positions; see :meth:`SpeechModel.decoder_inputs`."""
        decoder = self.module.model.decoder
        hidden = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[: tokens.shape[1]]
        causal = create_causal_mask(
            config=self.module.config, inputs_embeds=hidden, attention_mask=None, **cached(create_causal_mask, None)
        )
        return hidden, {"attention_mask": causal, "encoder_hidden_states": encoded.states, "use_cache": False}

    def max_new_tokens(self, samples: int) -> int:  # noqa: ARG002 - a window holds any clip
        """What is left of the decoder's positions, or of the checkpoint's ``max_length`` if that is less."""
        return self._cap(self.prompt)

    def _cap(self, prompt: tuple[int, ...]) -> int:
        positions: int = self.module.config.max_target_positions
        limit = getattr(self.module.generation_config, "max_length", None) or positions
        return min(positions - len(prompt), int(limit))

    def limits(self) -> dict[str, Any]:
        filters = np.asarray(self._extractor.mel_filters, np.float64).tolist()
        most = {"max_tokens": self.max_new_tokens(0), "tokens_per_second": None}
        return {**most, "window": self._extractor.n_samples, "mel_filters": filters}

    def decoder_states(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None = None) -> Tensor:
        output = self.module.model.decoder(
            input_ids=tokens,
            encoder_hidden_states=encoded.states,
            use_cache=cache is not None,
            **cached(type(self.module.model.decoder).forward, cache),
        )
        states: Tensor = output.last_hidden_state
        return states

    def _log_mel(self, waveform: np.ndarray) -> Tensor:
        """What the extractor makes of a whole window, without transforming its silent frames: they are all alike."""
        extractor = self._extractor
        behind = 2 * extractor.n_fft  # silence enough for a frame without the clip and without the end's reflection
        length = -(-(len(waveform) + behind) // extractor.hop_length) * extractor.hop_length
        if extractor.dither:
            length = extractor.n_samples
        mels = self._extracted(waveform, max_length=min(length, extractor.n_samples))
        silent = mels[:, -1:].expand(-1, extractor.nb_max_frames - mels.shape[1])
        return torch.cat([mels, silent], dim=1)

    def _extracted(self, waveform: np.ndarray, **arguments: Any) -> Tensor:
        batch = self._extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="pt", **arguments)
        mels: Tensor = batch["input_features"][0]
        return mels


def _default_extractor(config: WhisperConfig) -> WhisperFeatureExtractor:
    """The extractor an architecture implies: its mel bins, and a window that fills the encoder's positions."""
    frames_per_second = 100
    seconds = config.max_source_positions * _FRONTEND_STRIDE // frames_per_second
    return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=seconds)
